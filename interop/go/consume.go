package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

func (w *world) sendAll(topic string, list []string, shape func(i int, m *primitive.Message), options ...producer.Option) error {
	p, err := w.producer(options...)
	if err != nil {
		return err
	}
	defer p.Shutdown()
	for i, body := range list {
		m := primitive.NewMessage(topic, []byte(body))
		if shape != nil {
			shape(i, m)
		}
		if _, err := p.SendSync(background, m); err != nil {
			return err
		}
	}
	return nil
}

func pushConcurrent(w *world) (string, error) {
	topic, err := w.topic("concurrent", 4)
	if err != nil {
		return "", err
	}
	b := &inbox{}
	c, err := w.pushInto(b, topic, everything, consumer.WithConsumeMessageBatchMaxSize(4))
	if err != nil {
		return "", err
	}
	defer c.Shutdown()
	want := bodies("concurrent", 200)
	if err := w.sendAll(topic, want, nil); err != nil {
		return "", err
	}
	return "", b.expect(want)
}

func pushOrderly(w *world) (string, error) {
	topic, err := w.topic("orderly", 4)
	if err != nil {
		return "", err
	}
	want := bodies("orderly", 40)
	b := &inbox{}
	c, err := w.pushInto(b, topic, everything, consumer.WithConsumerOrder(true))
	if err != nil {
		return "", err
	}
	defer c.Shutdown()
	if err := w.sendAll(topic, want, func(i int, m *primitive.Message) {
		m.WithShardingKey("order " + strconv.Itoa(i%4))
	}, producer.WithQueueSelector(producer.NewHashQueueSelector())); err != nil {
		return "", err
	}
	if err := b.expect(want); err != nil {
		return "", err
	}
	last := map[int]int64{}
	for _, m := range b.all() {
		if before, seen := last[m.Queue.QueueId]; seen && m.QueueOffset != before+1 {
			return "", fmt.Errorf("queue %d: offset %d after %d", m.Queue.QueueId, m.QueueOffset, before)
		}
		last[m.Queue.QueueId] = m.QueueOffset
	}
	return "", nil
}

func pushBroadcast(w *world) (string, error) {
	topic, err := w.topic("broadcast", 2)
	if err != nil {
		return "", err
	}
	group := w.name("group")
	inboxes := []*inbox{{}, {}}
	for _, b := range inboxes {
		c, err := w.push(group, topic, everything, func(_ context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
			b.put(m)
			return consumer.ConsumeSuccess
		}, consumer.WithConsumerModel(consumer.BroadCasting))
		if err != nil {
			return "", err
		}
		defer c.Shutdown()
	}
	want := bodies("broadcast", 10)
	if err := w.sendAll(topic, want, nil); err != nil {
		return "", err
	}
	return "", errors.Join(inboxes[0].expect(want), inboxes[1].expect(want))
}

func tags(w *world) (string, error) {
	topic, err := w.topic("tags", 2)
	if err != nil {
		return "", err
	}
	list := bodies("tags", 12)
	if err := w.sendAll(topic, list, func(i int, m *primitive.Message) { m.WithTag([]string{"A", "B", "C"}[i%3]) }); err != nil {
		return "", err
	}
	var want []string
	for i, body := range list {
		if i%3 != 1 {
			want = append(want, body)
		}
	}
	_, err = w.arrivals(topic, want, consumer.MessageSelector{Type: consumer.TAG, Expression: "A || C"})
	return "", err
}

func sqlFilter(w *world) (string, error) {
	topic, err := w.topic("sql", 2)
	if err != nil {
		return "", err
	}
	list := bodies("sql", 10)
	if err := w.sendAll(topic, list, func(i int, m *primitive.Message) { m.WithProperty("n", strconv.Itoa(i)) }); err != nil {
		return "", err
	}
	_, err = w.arrivals(topic, list[4:], consumer.MessageSelector{Type: consumer.SQL92, Expression: "n > 3"})
	return "", err
}

func pull(w *world) (string, error) {
	topic, err := w.topic("pull", 2)
	if err != nil {
		return "", err
	}
	want := bodies("pull", 10)
	if err := w.sendAll(topic, want, nil); err != nil {
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
	var got []string
	broker := w.brokerName(topic)
	for queue := range 2 {
		mq := &primitive.MessageQueue{Topic: topic, BrokerName: broker, QueueId: queue}
		for offset := int64(0); offset < 5; {
			r, err := c.PullFrom(background, mq, offset, 3)
			if err != nil {
				return "", err
			}
			if r.Status != primitive.PullFound || r.MaxOffset != 5 || r.MinOffset != 0 {
				return "", fmt.Errorf("pull at %d: status %v, offsets %d to %d", offset, r.Status, r.MinOffset, r.MaxOffset)
			}
			for _, m := range r.GetMessageExts() {
				got = append(got, string(m.Body))
			}
			offset = r.NextBeginOffset
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) { // bodies with one digit are in order
		return "", fmt.Errorf("pulled %v", got)
	}
	return "", nil
}

func committedOffset(w *world) (string, error) {
	topic, err := w.topic("offset", 2)
	if err != nil {
		return "", err
	}
	group := w.name("group")
	all := bodies("offset", 20)
	for half := range 2 {
		part := all[half*10 : half*10+10]
		if err := w.sendAll(topic, part, nil); err != nil {
			return "", err
		}
		b := &inbox{}
		c, err := w.push(group, topic, everything, func(_ context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
			b.put(m)
			return consumer.ConsumeSuccess
		})
		if err != nil {
			return "", err
		}
		err = b.expect(part)
		c.Shutdown()
		if err != nil {
			return "", fmt.Errorf("consumer %d: %w", half+1, err)
		}
	}
	return "", nil
}

// retryGroup makes a group whose retry topic exists: the Go client looks for its route at the start
// and then only every 30 seconds.
func (w *world) retryGroup() (string, error) {
	group := w.name("group")
	return group, w.createTopicNamed("%RETRY%"+group, 1)
}

func retry(w *world) (string, error) {
	topic, err := w.topic("retry", 1)
	if err != nil {
		return "", err
	}
	group, err := w.retryGroup()
	if err != nil {
		return "", err
	}
	b := &inbox{}
	c, err := w.push(group, topic, everything, failBelow(2, b))
	if err != nil {
		return "", err
	}
	defer c.Shutdown()
	if err := w.sendAll(topic, []string{"again"}, func(_ int, m *primitive.Message) { m.WithTag("R").WithKeys([]string{"key"}) }); err != nil {
		return "", err
	}
	if err := b.expect([]string{"again"}); err != nil {
		return "", err
	}
	m := b.all()[0]
	if m.ReconsumeTimes != 2 || m.Topic != topic || m.GetTags() != "R" || m.GetKeys() != "key" {
		return "", fmt.Errorf("came back as %v", m)
	}
	return "", nil
}

// failBelow asks for redelivery after one second until a message came times times before.
func failBelow(times int32, b *inbox) func(context.Context, *primitive.MessageExt) consumer.ConsumeResult {
	return func(ctx context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
		if m.ReconsumeTimes >= times {
			b.put(m)
			return consumer.ConsumeSuccess
		}
		how, _ := primitive.GetConcurrentlyCtx(ctx)
		how.DelayLevelWhenNextConsume = 1
		return consumer.ConsumeRetryLater
	}
}

func deadLetter(w *world) (string, error) {
	topic, err := w.topic("dead", 1)
	if err != nil {
		return "", err
	}
	group, err := w.retryGroup()
	if err != nil {
		return "", err
	}
	c, err := w.push(group, topic, everything, failBelow(99, &inbox{}), consumer.WithMaxReconsumeTimes(1))
	if err != nil {
		return "", err
	}
	defer c.Shutdown()
	if err := w.sendAll(topic, []string{"poison"}, func(_ int, m *primitive.Message) { m.WithTag("P") }); err != nil {
		return "", err
	}
	if err := w.awaitRoute("%DLQ%"+group, 1); err != nil {
		return "", err
	}
	got, err := w.arrivals("%DLQ%"+group, []string{"poison"}, everything)
	if err == nil && (got[0].GetTags() != "P" || got[0].GetProperty("RETRY_TOPIC") != topic) {
		err = fmt.Errorf("the dead letter is %v", got[0])
	}
	return "", err
}

func delayLevel(w *world) (string, error) {
	topic, err := w.topic("delay", 2)
	if err != nil {
		return "", err
	}
	b := &inbox{}
	var took []time.Duration
	var lock sync.Mutex
	c, err := w.push(w.name("group"), topic, everything, func(_ context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
		lock.Lock()
		defer lock.Unlock()
		took = append(took, time.Since(time.UnixMilli(m.BornTimestamp)))
		b.put(m)
		return consumer.ConsumeSuccess
	})
	if err != nil {
		return "", err
	}
	defer c.Shutdown()
	want := bodies("delay", 2)
	if err := w.sendAll(topic, want, func(i int, m *primitive.Message) { m.WithDelayTimeLevel(i + 1) }); err != nil {
		return "", err
	}
	if err := b.expect(want); err != nil {
		return "", err
	}
	for i, least := range []time.Duration{time.Second, 5 * time.Second} {
		if took[i] < least-50*time.Millisecond || took[i] > least+1500*time.Millisecond {
			return "", fmt.Errorf("level %d came after %v", i+1, took[i])
		}
	}
	return fmt.Sprintf("1 s: %d ms, 5 s: %d ms", took[0].Milliseconds(), took[1].Milliseconds()), nil
}

func rebalance(w *world) (string, error) {
	topic, err := w.topic("rebalance", 4)
	if err != nil {
		return "", err
	}
	group := w.name("group")
	inboxes := []*inbox{{}, {}}
	members := make([]rocketmq.PushConsumer, 2)
	join := func(i int) (err error) {
		members[i], err = w.push(group, topic, everything, func(_ context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
			inboxes[i].put(m)
			return consumer.ConsumeSuccess
		})
		return err
	}
	p, err := w.producer(producer.WithQueueSelector(producer.NewRoundRobinQueueSelector()))
	if err != nil {
		return "", err
	}
	defer p.Shutdown()
	split := func(first, second int) error {
		return await(fmt.Sprintf("queues split %d to %d", first, second), func() bool {
			round := w.name("round")
			for range 4 {
				p.SendSync(background, primitive.NewMessage(topic, []byte(round)))
			}
			time.Sleep(300 * time.Millisecond)
			return inboxes[0].queuesOf(round) == first && inboxes[1].queuesOf(round) == second
		})
	}
	if err := join(0); err != nil {
		return "", err
	}
	defer members[0].Shutdown()
	if err := split(4, 0); err != nil {
		return "", err
	}
	started := time.Now()
	if err := join(1); err != nil {
		return "", err
	}
	if err := split(2, 2); err != nil {
		return "", err
	}
	joined := time.Since(started)
	started = time.Now()
	members[1].Shutdown()
	if err := split(4, 0); err != nil {
		return "", fmt.Errorf("after the second member left: %w", err)
	}
	return fmt.Sprintf("joined in %.1f s, left in %.1f s", joined.Seconds(), time.Since(started).Seconds()), nil
}

func (b *inbox) queuesOf(body string) int {
	queues := map[int]bool{}
	for _, m := range b.all() {
		if string(m.Body) == body {
			queues[m.Queue.QueueId] = true
		}
	}
	return len(queues)
}

var errNoRestart = errors.New("the server cannot be restarted from here")

func brokerRestart(w *world) (string, error) {
	topic, err := w.topic("restart", 2)
	if err != nil {
		return "", err
	}
	b := &inbox{}
	c, err := w.pushInto(b, topic, everything)
	if err != nil {
		return "", err
	}
	defer c.Shutdown()
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	defer p.Shutdown()
	want := bodies("restart", 20)
	send := func(body string) error {
		_, err := p.SendSync(background, primitive.NewMessage(topic, []byte(body)))
		return err
	}
	for _, body := range want[:10] {
		if err := send(body); err != nil {
			return "", err
		}
	}
	if err := b.expect(want[:10]); err != nil {
		return "", err
	}
	if !askRestart() {
		return "", errNoRestart
	}
	started := time.Now()
	for _, body := range want[10:] {
		if err := await("a send after the restart", func() bool { return send(body) == nil }); err != nil {
			return "", err
		}
	}
	// This client waits out the 30 s of a pull that it sent just as the broker stopped.
	if err := awaitFor(3*patience, "every message", func() bool { return len(distinct(b.all())) == len(want) }); err != nil {
		return "", fmt.Errorf("%w: %d of %d came", err, len(distinct(b.all())), len(want))
	}
	return fmt.Sprintf("all there %.1f s after the restart", time.Since(started).Seconds()), nil
}

func distinct(messages []*primitive.MessageExt) map[string]bool {
	set := map[string]bool{}
	for _, m := range messages {
		set[string(m.Body)] = true
	}
	return set
}

func requestReply(w *world) (string, error) {
	topic, err := w.topic("request", 1)
	if err != nil {
		return "", err
	}
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	defer p.Shutdown()
	c, err := w.push(w.name("group"), topic, everything, func(_ context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
		// The broker finds the requester by its heartbeat, which this client sends around its request.
		time.Sleep(time.Second)
		if answer, err := consumer.CreateReplyMessage(m, nil); err == nil {
			answer.Body = append([]byte("re: "), m.Body...) // this client loses a body given above
			p.SendSync(background, answer)
		}
		return consumer.ConsumeSuccess
	})
	if err != nil {
		return "", err
	}
	defer c.Shutdown()
	asker, err := w.producer()
	if err != nil {
		return "", err
	}
	defer asker.Shutdown()
	reply, err := asker.Request(background, 10*time.Second, primitive.NewMessage(topic, []byte("question")))
	if err == nil && string(reply.Body) != "re: question" {
		err = fmt.Errorf("the reply is %q", reply.Body)
	}
	return "", err
}
