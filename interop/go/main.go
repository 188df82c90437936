// Scenarios of the Go remoting client against one name server and broker.
//
// Prints one JSON line per scenario. The broker restart comes last: the program asks for it with
// {"request":"restart"} and waits for a line on standard input.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

const clientTitle = "Go 2.1.2"

type result struct {
	Client   string  `json:"client"`
	Scenario string  `json:"scenario"`
	OK       bool    `json:"ok"`
	Seconds  float64 `json:"seconds"`
	Detail   string  `json:"detail"`
	Skipped  bool    `json:"skipped"`
}

type scenario struct {
	name string
	run  func(w *world) (string, error)
}

var scenarios = []scenario{
	{"create topic", createTopic},
	{"send sync", sendSync},
	{"send async", sendAsync},
	{"send one-way", sendOneWay},
	{"send to a queue", sendToQueue},
	{"send by selector", sendBySelector},
	{"send batch", sendBatch},
	{"compressed body", compressedBody},
	{"push concurrent", pushConcurrent},
	{"push orderly", pushOrderly},
	{"push broadcast", pushBroadcast},
	{"tags", tags},
	{"SQL92 filter", sqlFilter},
	{"pull", pull},
	{"committed offset", committedOffset},
	{"retry", retry},
	{"dead letter", deadLetter},
	{"delay level", delayLevel},
	{"transaction", transaction},
	{"request and reply", requestReply},
	{"rebalance", rebalance},
	{"timer", timer},
	{"reset offsets", resetOffsets},
	{"trace", trace},
	{"priority", priority},
	{"compaction topic", compactionTopic},
	{"light queues", lightQueues},
	{"topic rules", topicRules},
}

// skip is an error that says why a scenario cannot run here.
type skip string

func (s skip) Error() string { return string(s) }

var output sync.Mutex

func printLine(value any) {
	line, _ := json.Marshal(value)
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(line))
}

func report(name string, started time.Time, detail string, err error) {
	if err != nil {
		detail = err.Error()
	}
	_, skipped := err.(skip)
	printLine(result{clientTitle, name, err == nil, time.Since(started).Seconds(), detail, skipped})
}

func main() {
	w := &world{}
	flag.StringVar(&w.namesrv, "namesrv", "", "host:port")
	flag.StringVar(&w.broker, "broker", "", "host:port")
	flag.StringVar(&w.run, "run", "", "makes topics and groups unique")
	only := flag.String("only", "", "run one scenario")
	list := flag.Bool("list", false, "print the scenarios' names")
	flag.Parse()
	if *list {
		for _, s := range scenarios {
			fmt.Println(s.name)
		}
		fmt.Println("broker restart")
		return
	}
	rlog.SetLogLevel("error")
	if flag.NArg() > 0 {
		if err := cross(flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	var group sync.WaitGroup
	for _, s := range scenarios {
		if *only != "" && *only != s.name {
			continue
		}
		group.Add(1)
		go func() {
			defer group.Done()
			started := time.Now()
			detail, err := s.run(w)
			report(s.name, started, detail, err)
		}()
	}
	group.Wait()
	if *only == "" || *only == "broker restart" {
		restartLast(w)
	}
	os.Exit(0) // the client leaves goroutines behind that retry for ever
}

func askRestart() bool {
	printLine(map[string]string{"request": "restart"})
	answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	return answer == "restarted\n"
}

func restartLast(w *world) {
	started := time.Now()
	detail, err := brokerRestart(w)
	if err == errNoRestart {
		printLine(result{clientTitle, "broker restart", false, 0, err.Error(), true})
		return
	}
	report("broker restart", started, detail, err)
}
