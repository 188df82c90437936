package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

func normal(w *world) (string, error) {
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	m := w.message("hello")
	m.SetTag("red")
	m.SetKeys("k1", "k2")
	m.AddProperty("mine", "1")
	receipt, err := send(p, m)
	if err != nil {
		return "", err
	}
	c, err := w.simple(rmq.SUB_ALL)
	if err != nil {
		return "", err
	}
	messages, err := take(c, 1)
	if err != nil {
		return "", err
	}
	got := messages[0]
	if !slices.Equal(got.GetKeys(), []string{"k1", "k2"}) {
		return "", fmt.Errorf("keys: %v", got.GetKeys())
	}
	return "", errors.Join(
		same(string(got.GetBody()), "hello", "body"),
		same(*got.GetTag(), "red", "tag"),
		same(fmt.Sprint(got.GetProperties()), "map[mine:1]", "properties"),
		same(got.GetMessageId(), receipt.MessageID, "id"),
		same(got.GetDeliveryAttempt(), 1, "attempt"))
}

func fifo(w *world) (string, error) {
	if err := w.sendGroup(numbered(20)); err != nil {
		return "", err
	}
	c, err := w.simple(rmq.SUB_ALL)
	if err != nil {
		return "", err
	}
	messages, err := take(c, 20)
	if err == nil && !slices.Equal(texts(messages), numbered(20)) {
		err = fmt.Errorf("order: %v", texts(messages))
	}
	return "", err
}

// sendGroup sends these, all of one message group.
func (w *world) sendGroup(bodies []string) error {
	p, err := w.producer()
	if err != nil {
		return err
	}
	for _, body := range bodies {
		m := w.message(body)
		m.SetMessageGroup("one")
		if _, err := send(p, m); err != nil {
			return err
		}
	}
	return nil
}

func delayed(w *world) (string, error) {
	b, err := w.push(always)
	if err != nil {
		return "", err
	}
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	due := time.Now().Add(4 * time.Second)
	m := w.message("later")
	m.SetDelayTimestamp(due)
	if _, err := send(p, m); err != nil {
		return "", err
	}
	if _, err := b.next(); err != nil {
		return "", err
	}
	late := time.Since(due)
	// The client's seconds are whole ones.
	return fmt.Sprintf("%d ms after its time", late.Milliseconds()), same(late > -time.Second, true, "late")
}

func priority(w *world) (string, error) {
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	for _, number := range []int32{1, 3, 0, 2} {
		m := w.message(strconv.Itoa(int(number)))
		if err := m.SetPriority(number); err != nil {
			return "", err
		}
		if _, err := send(p, m); err != nil {
			return "", err
		}
	}
	c, err := w.simple(rmq.SUB_ALL)
	if err != nil {
		return "", err
	}
	order := ""
	for range 4 {
		messages, err := receive(c, 1, 1, 15*time.Second, true)
		if err != nil {
			return "", err
		}
		order += string(messages[0].GetBody())
	}
	return "", same(order, "3210", "order")
}

func recall(w *world) (string, error) {
	b, err := w.push(always)
	if err != nil {
		return "", err
	}
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	due := time.Now().Add(6 * time.Second)
	var receipts []*rmq.SendReceipt
	for _, body := range []string{"taken back", "kept"} {
		m := w.message(body)
		m.SetDelayTimestamp(due)
		receipt, err := send(p, m)
		if err != nil {
			return "", err
		}
		receipts = append(receipts, receipt)
	}
	id, err := p.Recall(context.Background(), w.topic, receipts[0].RecallHandle)
	if err != nil {
		return "", err
	}
	if err := same(id, receipts[0].MessageID, "recalled"); err != nil {
		return "", err
	}
	if err := b.bodies("kept"); err != nil {
		return "", err
	}
	return "", b.nothing(time.Second)
}

// judge commits the orphans that begin with "kept".
var judge = rmq.WithTransactionChecker(&rmq.TransactionChecker{
	Check: func(m *rmq.MessageView) rmq.TransactionResolution {
		if strings.HasPrefix(string(m.GetBody()), "kept") {
			return rmq.COMMIT
		}
		return rmq.ROLLBACK
	},
})

// halves sends half messages, and gives their transactions and who waits for the messages.
func (w *world) halves(bodies ...string) ([]rmq.Transaction, inbox, error) {
	b, err := w.push(always)
	if err != nil {
		return nil, nil, err
	}
	p, err := w.producer(judge)
	if err != nil {
		return nil, nil, err
	}
	var open []rmq.Transaction
	for _, body := range bodies {
		open = append(open, p.BeginTransaction())
		if _, err := p.SendWithTransaction(context.Background(), w.message(body), open[len(open)-1]); err != nil {
			return nil, nil, err
		}
	}
	return open, b, nil
}

func transaction(w *world) (string, error) {
	open, b, err := w.halves("kept", "gone")
	if err != nil {
		return "", err
	}
	if err := b.nothing(time.Second); err != nil {
		return "", err
	}
	if err := errors.Join(open[0].Commit(), open[1].RollBack()); err != nil {
		return "", err
	}
	if err := b.bodies("kept"); err != nil {
		return "", err
	}
	return "", b.nothing(time.Second)
}

func orphan(w *world) (string, error) {
	_, b, err := w.halves("gone", "kept")
	if err != nil {
		return "", err
	}
	if err := b.bodies("kept"); err != nil {
		return "", err
	}
	return "", b.nothing(time.Second)
}

func wrongType(w *world) (string, error) {
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	m := w.message("x")
	m.SetMessageGroup("g")
	_, err = send(p, m)
	return expect(0, err) // the client knows from the route
}

func wrongTopic(w *world) (string, error) {
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	_, err = send(p, &rmq.Message{Topic: "no-such-topic", Body: []byte("x")})
	return expect(topicNotFound, err)
}

func large(w *world) (string, error) {
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	// Above it the client's own connection refuses a request.
	body := strings.Repeat("x", 2*1024*1024-1000)
	if _, err := send(p, w.message(body)); err != nil {
		return "", err
	}
	c, err := w.simple(rmq.SUB_ALL)
	if err != nil {
		return "", err
	}
	messages, err := take(c, 1)
	if err != nil {
		return "", err
	}
	if err := same(len(messages[0].GetBody()), len(body), "size"); err != nil {
		return "", err
	}
	_, err = send(p, w.message(strings.Repeat("x", 4*1024*1024+1)))
	return expect(0, err)
}
