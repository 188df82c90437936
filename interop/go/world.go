package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

const patience = 20 * time.Second // the longest any awaited event may take

// world is the server under test and what makes this run's names unique.
type world struct {
	namesrv, broker, run string
	names                atomic.Int64
}

func (w *world) name(what string) string {
	return fmt.Sprintf("go-%s-%s-%d", what, w.run, w.names.Add(1))
}

func (w *world) resolver() primitive.NsResolver {
	return primitive.NewPassthroughResolver([]string{w.namesrv})
}

func (w *world) producer(options ...producer.Option) (rocketmq.Producer, error) {
	p, err := rocketmq.NewProducer(append([]producer.Option{
		producer.WithNsResolver(w.resolver()),
		producer.WithGroupName(w.name("producers")),
		producer.WithInstanceName(w.name("instance")),
		producer.WithRetry(2),
	}, options...)...)
	if err != nil {
		return nil, err
	}
	return p, p.Start()
}

// topic creates a topic through the client's admin and waits until its route is known.
func (w *world) topic(what string, queues int) (string, error) {
	name := w.name(what)
	return name, w.createTopicNamed(name, queues)
}

func (w *world) createTopicNamed(name string, queues int) error {
	a, err := admin.NewAdmin(admin.WithResolver(w.resolver()))
	if err != nil {
		return err
	}
	if err := a.CreateTopic(context.Background(), admin.WithTopicCreate(name),
		admin.WithBrokerAddrCreate(w.broker), admin.WithReadQueueNums(queues),
		admin.WithWriteQueueNums(queues)); err != nil {
		return fmt.Errorf("create topic: %w", err)
	}
	return w.awaitRoute(name, queues)
}

func (w *world) awaitRoute(topic string, queues int) error {
	a, err := admin.NewAdmin(admin.WithResolver(w.resolver()))
	if err != nil {
		return err
	}
	var got []*primitive.MessageQueue
	return await(fmt.Sprintf("route of %s with %d queues", topic, queues), func() bool {
		got, err = a.FetchPublishMessageQueues(context.Background(), topic)
		return err == nil && len(got) == queues
	})
}

// inbox collects what consumers received, in order of arrival.
type inbox struct {
	sync.Mutex
	messages []*primitive.MessageExt
}

func (b *inbox) put(messages ...*primitive.MessageExt) {
	b.Lock()
	defer b.Unlock()
	b.messages = append(b.messages, messages...)
}

func (b *inbox) all() []*primitive.MessageExt {
	b.Lock()
	defer b.Unlock()
	return append([]*primitive.MessageExt(nil), b.messages...)
}

// expect waits for exactly these bodies, each once, in any order.
func (b *inbox) expect(bodies []string) error {
	err := await("messages", func() bool { return len(b.all()) >= len(bodies) })
	time.Sleep(200 * time.Millisecond) // what comes too often comes now
	count := map[string]int{}
	for _, m := range b.all() {
		count[string(m.Body)]++
	}
	for _, body := range bodies {
		if count[body] != 1 {
			return fmt.Errorf("%d of %d messages arrived; %q %d times", len(b.all()), len(bodies), body, count[body])
		}
		delete(count, body)
	}
	if len(count) > 0 {
		return fmt.Errorf("also arrived: %v", count)
	}
	return err
}

var everything = consumer.MessageSelector{Type: consumer.TAG, Expression: "*"}

// push starts a consumer that hands every message to receive; stop it with Shutdown.
func (w *world) push(group, topic string, selector consumer.MessageSelector,
	receive func(context.Context, *primitive.MessageExt) consumer.ConsumeResult,
	options ...consumer.Option) (rocketmq.PushConsumer, error) {
	c, err := rocketmq.NewPushConsumer(append([]consumer.Option{
		consumer.WithNsResolver(w.resolver()),
		consumer.WithGroupName(group),
		consumer.WithInstance(w.name("instance")),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	}, options...)...)
	if err != nil {
		return nil, err
	}
	err = c.Subscribe(topic, selector, func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range messages {
			if answer := receive(ctx, m); answer != consumer.ConsumeSuccess {
				return answer, nil
			}
		}
		return consumer.ConsumeSuccess, nil
	})
	if err != nil {
		return nil, err
	}
	return c, c.Start()
}

func (w *world) pushInto(b *inbox, topic string, selector consumer.MessageSelector, options ...consumer.Option) (rocketmq.PushConsumer, error) {
	return w.push(w.name("group"), topic, selector, func(_ context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
		b.put(m)
		return consumer.ConsumeSuccess
	}, options...)
}

// arrivals reads a topic from its start with a new group until exactly these bodies arrived.
func (w *world) arrivals(topic string, bodies []string, selector consumer.MessageSelector) ([]*primitive.MessageExt, error) {
	b := &inbox{}
	c, err := w.pushInto(b, topic, selector)
	if err != nil {
		return nil, err
	}
	defer c.Shutdown()
	err = b.expect(bodies)
	return b.all(), err
}

func await(what string, done func() bool) error {
	return awaitFor(patience, what, done)
}

func awaitFor(longest time.Duration, what string, done func() bool) error {
	for end := time.Now().Add(longest); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if done() {
			return nil
		}
	}
	return fmt.Errorf("waited %v for %s", longest, what)
}

func bodies(prefix string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%s %d é", prefix, i)
	}
	return list
}
