package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
	"github.com/apache/rocketmq-clients/golang/v5/credentials"
)

const patience = 40 * time.Second // the longest any awaited event may take

var notInNames = regexp.MustCompile("[^A-Za-z0-9]+")

// world is what one scenario opens, and the names it uses.
type world struct {
	endpoint, topic, group string
}

func newWorld(scenario, endpoint, run string) *world {
	topic := run + "-" + notInNames.ReplaceAllString(scenario, "-")
	return &world{endpoint, topic, "group-" + topic}
}

func (w *world) config(group string) *rmq.Config {
	return &rmq.Config{
		Endpoint:      w.endpoint,
		ConsumerGroup: group,
		Credentials:   &credentials.SessionCredentials{},
	}
}

func (w *world) producer(options ...rmq.ProducerOption) (rmq.Producer, error) {
	p, err := rmq.NewProducer(w.config(""), append(options, rmq.WithTopics(w.topic))...)
	if err != nil {
		return nil, err
	}
	return p, p.Start()
}

func (w *world) simple(filter *rmq.FilterExpression) (rmq.SimpleConsumer, error) {
	return w.simpleOf(w.topic, w.group, filter)
}

func (w *world) simpleOf(topic, group string, filter *rmq.FilterExpression) (rmq.SimpleConsumer, error) {
	c, err := rmq.NewSimpleConsumer(w.config(group),
		rmq.WithSimpleAwaitDuration(10*time.Second),
		rmq.WithSimpleSubscriptionExpressions(map[string]*rmq.FilterExpression{topic: filter}))
	if err != nil {
		return nil, err
	}
	return c, c.Start()
}

type inbox chan *rmq.MessageView

func always(*rmq.MessageView) bool { return true }

// push starts a push consumer; judge says whether a message is done with.
func (w *world) push(judge func(*rmq.MessageView) bool) (inbox, error) {
	arrived := make(inbox, 1000)
	c, err := rmq.NewPushConsumer(w.config(w.group),
		rmq.WithPushAwaitDuration(10*time.Second),
		rmq.WithPushSubscriptionExpressions(map[string]*rmq.FilterExpression{w.topic: rmq.SUB_ALL}),
		rmq.WithPushMessageListener(&rmq.FuncMessageListener{
			Consume: func(m *rmq.MessageView) rmq.ConsumerResult {
				arrived <- m
				if judge(m) {
					return rmq.SUCCESS
				}
				return rmq.FAILURE
			},
		}))
	if err != nil {
		return nil, err
	}
	return arrived, c.Start()
}

func (w *world) message(body string) *rmq.Message {
	return &rmq.Message{Topic: w.topic, Body: []byte(body)}
}

// send sends one message and gives its receipt.
func send(p rmq.Producer, m *rmq.Message) (*rmq.SendReceipt, error) {
	receipts, err := p.Send(context.Background(), m)
	if err != nil {
		return nil, err
	}
	return receipts[0], nil
}

// sendOne is for who needs one message of a new producer.
func (w *world) sendOne(body string) (*rmq.SendReceipt, error) {
	p, err := w.producer()
	if err != nil {
		return nil, err
	}
	return send(p, w.message(body))
}

func (b inbox) next() (*rmq.MessageView, error) {
	select {
	case m := <-b:
		return m, nil
	case <-time.After(patience):
		return nil, fmt.Errorf("nothing arrived in %v", patience)
	}
}

// bodies waits for these, in this order.
func (b inbox) bodies(wanted ...string) error {
	for _, body := range wanted {
		m, err := b.next()
		if err != nil {
			return err
		}
		if err := same(string(m.GetBody()), body, "body"); err != nil {
			return err
		}
	}
	return nil
}

func (b inbox) nothing(wait time.Duration) error {
	select {
	case m := <-b:
		return fmt.Errorf("too much arrived: %s", m.GetBody())
	case <-time.After(wait):
		return nil
	}
}

// receive receives until count messages are there; acknowledges them when ack is set.
func receive(c rmq.SimpleConsumer, count int, batch int32, invisible time.Duration, ack bool) ([]*rmq.MessageView, error) {
	var found []*rmq.MessageView
	for end := time.Now().Add(patience); len(found) < count && time.Now().Before(end); {
		messages, err := c.Receive(context.Background(), batch, invisible)
		if err != nil { // also that there is none
			time.Sleep(100 * time.Millisecond)
			continue
		}
		for _, m := range messages {
			found = append(found, m)
			if !ack {
				continue
			}
			if err := c.Ack(context.Background(), m); err != nil {
				return nil, err
			}
		}
	}
	return found, same(len(found), count, "received")
}

func take(c rmq.SimpleConsumer, count int) ([]*rmq.MessageView, error) {
	return receive(c, count, 32, 15*time.Second, true)
}

// persist does it again until it works.
func persist(act func() error) error {
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		err := act()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// expect checks that it was refused, with this code unless that is 0; what the refusal said.
func expect(code int32, err error) (string, error) {
	if err == nil {
		return "", fmt.Errorf("not refused")
	}
	status, ok := rmq.AsErrRpcStatus(err)
	if code != 0 && !(ok && status.Code == code) && !strings.Contains(err.Error(), strconv.Itoa(int(code))) {
		return "", err
	}
	return err.Error()[:min(200, len(err.Error()))], nil
}

func same[T comparable](found, wanted T, what string) error {
	if found != wanted {
		return fmt.Errorf("%s: %v, not %v", what, found, wanted)
	}
	return nil
}

func sameSorted(messages []*rmq.MessageView, wanted ...string) error {
	found := texts(messages)
	sort.Strings(found)
	sort.Strings(wanted)
	if !slices.Equal(found, wanted) {
		return fmt.Errorf("%v, not %v", found, wanted)
	}
	return nil
}

func texts(messages []*rmq.MessageView) []string {
	var list []string
	for _, m := range messages {
		list = append(list, string(m.GetBody()))
	}
	return list
}

func numbered(count int) []string {
	list := make([]string, count)
	for i := range list {
		list[i] = strconv.Itoa(i)
	}
	return list
}
