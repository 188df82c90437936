package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// What brokers do for any client, and what an operator does to it meanwhile.

const (
	queryOffsetCode  = 14
	createTopicCode  = 17
	brokerConfigCode = 25
	resetOffsetCode  = 222
)

// operate sends one request to the broker, as mqadmin would; its answer's code.
func (w *world) operate(code int, fields map[string]string, body string) (int, error) {
	connection, err := net.DialTimeout("tcp", w.broker, 5*time.Second)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(10 * time.Second))
	header, _ := json.Marshal(map[string]any{"code": code, "extFields": fields, "language": "JAVA",
		"flag": 0, "opaque": 1, "version": 479})
	frame := binary.BigEndian.AppendUint32(nil, uint32(4+len(header)+len(body)))
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(header)))
	if _, err := connection.Write(append(append(frame, header...), body...)); err != nil {
		return 0, err
	}
	size := make([]byte, 4)
	if _, err := io.ReadFull(connection, size); err != nil {
		return 0, err
	}
	answer := make([]byte, binary.BigEndian.Uint32(size))
	if _, err := io.ReadFull(connection, answer); err != nil {
		return 0, err
	}
	answered := struct{ Code int }{}
	length := binary.BigEndian.Uint32(answer) & 0xFFFFFF
	err = json.NewDecoder(bytes.NewReader(answer[4 : 4+length])).Decode(&answered)
	return answered.Code, err
}

func (w *world) succeed(code int, fields map[string]string, body string) error {
	got, err := w.operate(code, fields, body)
	if err == nil && got != 0 {
		err = fmt.Errorf("request %d %v was answered with %d", code, fields, got)
	}
	return err
}

func timer(w *world) (string, error) {
	topic, err := w.topic("timer", 2)
	if err != nil {
		return "", err
	}
	b := &inbox{}
	c, err := w.pushInto(b, topic, everything)
	if err != nil {
		return "", err
	}
	defer c.Shutdown()
	begin := time.Now().UnixMilli()
	want := []string{"soon", "later", "last"}
	due := map[string]int64{"soon": begin + 2500, "later": begin + 4000, "last": begin + 6000}
	if err := w.sendAll(topic, []string{"last", "later", "soon"}, func(i int, m *primitive.Message) {
		switch i {
		case 0:
			m.WithProperty("TIMER_DELAY_SEC", "6")
		case 1:
			m.WithProperty("TIMER_DELAY_MS", "4000")
		case 2:
			m.WithProperty("TIMER_DELIVER_MS", strconv.FormatInt(due["soon"], 10))
		}
	}); err != nil {
		return "", err
	}
	if err := b.expect(want); err != nil {
		return "", err
	}
	for i, m := range b.all() {
		late := m.StoreTimestamp - due[string(m.Body)]
		// RocketMQ's wheel may be a step early; a machine that is busy is late.
		if string(m.Body) != want[i] || late < -1001 || late > 4000 {
			return "", fmt.Errorf("%s came %d ms after its time, as number %d", m.Body, late, i)
		}
	}
	return "", nil
}

func resetOffsets(w *world) (string, error) {
	topic, err := w.topic("reset", 1)
	if err != nil {
		return "", err
	}
	group, b := w.name("group"), &inbox{}
	all := bodies("reset", 10)
	if err := w.sendAll(topic, all[:5], nil); err != nil {
		return "", err
	}
	time.Sleep(50 * time.Millisecond)
	middle := time.Now().UnixMilli()
	time.Sleep(50 * time.Millisecond)
	if err := w.sendAll(topic, all[5:], nil); err != nil {
		return "", err
	}
	receive := func(b *inbox) func(context.Context, *primitive.MessageExt) consumer.ConsumeResult {
		return func(_ context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
			b.put(m)
			return consumer.ConsumeSuccess
		}
	}
	c, err := w.push(group, topic, everything, receive(b))
	if err != nil {
		return "", err
	}
	if err := b.expect(all); err != nil {
		return "", err
	}
	asked := map[string]string{"topic": topic, "consumerGroup": group, "queueId": "0", "setZeroIfNotFound": "false"}
	if err := await("a committed offset", func() bool {
		code, err := w.operate(queryOffsetCode, asked, "")
		return err == nil && code == 0
	}); err != nil {
		return "", err
	}
	fields := map[string]string{"topic": topic, "group": group, "isForce": "true",
		"timestamp": strconv.FormatInt(middle, 10)}
	// The way before RocketMQ 5: the broker tells the client, which waits 10 s.
	if err := w.succeed(brokerConfigCode, nil, "useServerSideResetOffset=false\n"); err != nil {
		return "", err
	}
	err = w.succeed(resetOffsetCode, fields, "")
	if back := w.succeed(brokerConfigCode, nil, "useServerSideResetOffset=true\n"); err == nil {
		err = back
	}
	if err == nil {
		err = awaitFor(3*patience, "what the client was told", func() bool { return len(b.all()) >= 15 })
	}
	if err == nil {
		time.Sleep(200 * time.Millisecond)
		err = sameBodies("told", b.all()[10:], all[5:])
	}
	c.Shutdown()
	if err != nil {
		return "", err
	}
	// Offline: to an offset.
	fields["queueId"], fields["offset"] = "0", "8"
	if err := w.succeed(resetOffsetCode, fields, ""); err != nil {
		return "", err
	}
	b = &inbox{}
	if c, err = w.push(group, topic, everything, receive(b)); err != nil {
		return "", err
	}
	defer c.Shutdown()
	// Its first pull is told of the offset; then this client waits 10 s, and for its next turn.
	if err := awaitFor(3*patience, "what is behind the offset", func() bool { return len(b.all()) >= 2 }); err != nil {
		return "", err
	}
	return "", b.expect(all[8:])
}

func sameBodies(what string, got []*primitive.MessageExt, want []string) error {
	var found []string
	for _, m := range got {
		found = append(found, string(m.Body))
	}
	slices.Sort(found)
	if !slices.Equal(found, want) { // bodies with one digit are in order
		return fmt.Errorf("%s: %q, not %q", what, found, want)
	}
	return nil
}

func trace(w *world) (string, error) {
	topic, err := w.topic("trace", 1)
	if err != nil {
		return "", err
	}
	log, err := w.topic("trace-log", 1) // this client looks for its route before it traces
	if err != nil {
		return "", err
	}
	traced := &primitive.TraceConfig{Access: primitive.Local, Resolver: w.resolver(), TraceTopic: log}
	p, err := w.producer(producer.WithTrace(traced))
	if err != nil {
		return "", err
	}
	defer p.Shutdown()
	sent, err := p.SendSync(background, primitive.NewMessage(topic, []byte("traced")).WithKeys([]string{"traced-key"}))
	if err != nil {
		return "", err
	}
	b := &inbox{}
	c, err := w.pushInto(b, topic, everything, consumer.WithTrace(traced))
	if err != nil {
		return "", err
	}
	defer c.Shutdown()
	if err := b.expect([]string{"traced"}); err != nil {
		return "", err
	}
	traces := &inbox{}
	reader, err := w.pushInto(traces, log, everything)
	if err != nil {
		return "", err
	}
	defer reader.Shutdown()
	return "", awaitFor(2*patience, "a trace of "+sent.MsgID, func() bool {
		kinds := map[string]bool{}
		for _, m := range traces.all() {
			for _, record := range strings.Split(string(m.Body), "\x02") {
				if strings.Contains(record, sent.MsgID) && strings.Contains(m.GetKeys(), sent.MsgID) {
					kinds[strings.Split(record, "\x01")[0]] = true
				}
			}
		}
		return kinds["Pub"] && kinds["SubBefore"] && kinds["SubAfter"]
	})
}

// special makes a topic that its attributes make a special one; false where they are unknown.
func (w *world) special(what string, queues int, attributes string) (string, bool, error) {
	topic, count := w.name(what), strconv.Itoa(queues)
	code, err := w.operate(createTopicCode, map[string]string{"topic": topic, "defaultTopic": "TBW102",
		"readQueueNums": count, "writeQueueNums": count, "perm": "6", "topicFilterType": "SINGLE_TAG",
		"topicSysFlag": "0", "order": "false", "attributes": attributes}, "")
	if err != nil || code != 0 {
		return topic, false, err
	}
	return topic, true, w.awaitRoute(topic, queues)
}

func priority(w *world) (string, error) {
	topic, known, err := w.special("priority", 3, "+message.type=PRIORITY")
	if err != nil || !known {
		return "", fmt.Errorf("no priority topic: %w", err)
	}
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	defer p.Shutdown()
	for _, it := range [][2]int{{2, 2}, {0, 0}, {9, 2}, {1, 1}} {
		m := primitive.NewMessage(topic, []byte("x"))
		m.WithProperty("_SYS_MSG_PRIORITY_", strconv.Itoa(it[0]))
		r, err := p.SendSync(background, m)
		if err != nil {
			return "", err
		}
		if r.MessageQueue.QueueId != it[1] {
			return "", fmt.Errorf("priority %d is in queue %d", it[0], r.MessageQueue.QueueId)
		}
	}
	return "", nil
}

func compactionTopic(w *world) (string, error) {
	topic, known, err := w.special("compaction", 1, "+cleanup.policy=COMPACTION")
	if err != nil || !known {
		return "", fmt.Errorf("no compaction topic: %w", err)
	}
	if w.sendAll(topic, []string{"no key"}, nil) == nil {
		return "", fmt.Errorf("a message without keys was taken")
	}
	want := bodies("compaction", 9)
	if err := w.sendAll(topic, want, func(i int, m *primitive.Message) {
		m.WithKeys([]string{"k" + strconv.Itoa(i%3)})
	}); err != nil {
		return "", err
	}
	b := &inbox{}
	c, err := w.pushInto(b, topic, everything)
	if err != nil {
		return "", err
	}
	defer c.Shutdown()
	return "", await("the newest of each key", func() bool {
		newest := map[string]string{}
		for _, m := range b.all() {
			newest[m.GetKeys()] = max(newest[m.GetKeys()], string(m.Body))
		}
		return newest["k0"] == want[6] && newest["k1"] == want[7] && newest["k2"] == want[8]
	})
}

func lightQueues(w *world) (string, error) {
	topic, err := w.topic("light", 1)
	if err != nil {
		return "", err
	}
	light := []string{"%LMQ%" + topic + "-a", "%LMQ%" + topic + "-b"}
	want := bodies("light", 6)
	if err := w.sendAll(topic, want, func(i int, m *primitive.Message) {
		m.WithProperty("INNER_MULTI_DISPATCH", strings.Join(light[i%2:], ","))
	}); err != nil {
		return "", err
	}
	c, err := rocketmq.NewPullConsumer(consumer.WithNsResolver(w.resolver()),
		consumer.WithGroupName(w.name("group")), consumer.WithInstance(w.name("instance")))
	if err != nil {
		return "", err
	}
	if err := c.Subscribe(topic, everything); err != nil {
		return "", err
	}
	if err := c.Start(); err != nil {
		return "", err
	}
	defer c.Shutdown()
	broker := w.brokerName(topic)
	parent := &primitive.MessageQueue{Topic: topic, BrokerName: broker}
	if _, err := c.PullFrom(background, parent, 0, 1); err != nil { // now it knows the broker
		return "", err
	}
	for i, expected := range [][]string{{want[0], want[2], want[4]}, want} {
		r, err := c.PullFrom(background, &primitive.MessageQueue{Topic: light[i], BrokerName: broker}, 0, 32)
		if err != nil {
			return "", err
		}
		if err := sameBodies(light[i], r.GetMessageExts(), expected); err != nil {
			return "", err
		}
	}
	return "", nil
}

// topicRules are attributes that only Firearrow has.
func topicRules(w *world) (string, error) {
	topic, known, err := w.special("rules", 1, "+dedup.window.ms=60000,+retention.ms=3600000")
	if err == nil && !known {
		err = skip("RocketMQ's broker has no such attributes")
	}
	if err != nil {
		return "", err
	}
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	defer p.Shutdown()
	var ids []string
	for _, it := range [][3]string{{"order-1", "once", ""}, {"order-1", "once more", ""}, {"order-2", "over", "1"},
		{"order-3", "of use", "600000"}} {
		m := primitive.NewMessage(topic, []byte(it[1])).WithKeys([]string{it[0]})
		if it[2] != "" {
			m.WithProperty("TTL_MS", it[2])
		}
		r, err := p.SendSync(background, m)
		if err != nil {
			return "", err
		}
		ids = append(ids, r.OffsetMsgID)
	}
	if ids[0] != ids[1] {
		return "", fmt.Errorf("the second is at %s, the first at %s", ids[1], ids[0])
	}
	time.Sleep(20 * time.Millisecond)
	_, err = w.arrivals(topic, []string{"once", "of use"}, everything)
	return "", err
}
