// Scenarios of RocketMQ 5's Go client against one gRPC endpoint; prints one JSON line a scenario.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

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

var together = []scenario{
	{"gRPC send normal", normal},
	{"gRPC send FIFO", fifo},
	{"gRPC send delayed", delayed},
	{"gRPC priority", priority},
	{"gRPC recall", recall},
	{"gRPC transaction", transaction},
	{"gRPC orphaned transaction", orphan},
	{"gRPC simple consumer", simple},
	{"gRPC invisible time", invisible},
	{"gRPC stale receipt", stale},
	{"gRPC push consumer", push},
	{"gRPC push in order", pushInOrder},
	{"gRPC push retry", pushRetry},
	{"gRPC dead letter", dies("")},
	{"gRPC dead letter in order", dies("one")},
	{"gRPC tags", tags},
	{"gRPC SQL92 filter", sql},
	{"gRPC wrong type", wrongType},
	{"gRPC wrong topic", wrongTopic},
	{"gRPC large body", large},
}

var oneByOne = []scenario{{"gRPC over TLS", overTLS}, {"gRPC server restart", restart}}

var errNoRestart = errors.New("--quick restarts nothing")

var output sync.Mutex

func printLine(value any) {
	line, _ := json.Marshal(value)
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(line))
}

func askRestart() bool {
	printLine(map[string]string{"request": "restart"})
	answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	return answer == "restarted\n"
}

func (s scenario) report(client, endpoint, run string) {
	started := time.Now()
	detail, err := s.run(newWorld(s.name, endpoint, run))
	if err != nil {
		detail = err.Error()
	}
	printLine(result{client, s.name, err == nil, time.Since(started).Seconds(), detail, err == errNoRestart})
}

func main() {
	endpoint := flag.String("endpoint", "", "host:port")
	client := flag.String("client", "", "its title in the results")
	run := flag.String("run", "", "makes topics and groups unique")
	list := flag.Bool("list", false, "print the scenarios' names")
	flag.Parse()
	if *list {
		for _, s := range append(together, oneByOne...) {
			fmt.Println(s.name)
		}
		return
	}
	rmq.EnableSsl = false
	rmq.ResetLogger()
	if flag.NArg() > 0 {
		if err := cross(flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	var group sync.WaitGroup
	for _, s := range together {
		group.Go(func() { s.report(*client, *endpoint, *run) })
	}
	group.Wait()
	for _, s := range oneByOne {
		s.report(*client, *endpoint, *run)
	}
	os.Exit(0) // the clients' goroutines would go on
}
