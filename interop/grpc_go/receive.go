package main

import (
	"errors"
	"fmt"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

const (
	topicNotFound        = 40402
	invalidReceiptHandle = 40013
)

func simple(w *world) (string, error) {
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	for _, body := range numbered(50) {
		if _, err := send(p, w.message(body)); err != nil {
			return "", err
		}
	}
	c, err := w.simple(rmq.SUB_ALL)
	if err != nil {
		return "", err
	}
	messages, err := take(c, 50)
	if err != nil {
		return "", err
	}
	return "", sameSorted(messages, numbered(50)...)
}

func invisible(w *world) (string, error) {
	if _, err := w.sendOne("again"); err != nil {
		return "", err
	}
	c, err := w.simple(rmq.SUB_ALL)
	if err != nil {
		return "", err
	}
	first, err := receive(c, 1, 32, 30*time.Second, false)
	if err != nil {
		return "", err
	}
	started := time.Now()
	if err := c.ChangeInvisibleDuration(first[0], 10*time.Second); err != nil {
		return "", err
	}
	second, err := take(c, 1)
	if err != nil {
		return "", err
	}
	passed := time.Since(started)
	return fmt.Sprintf("back after %.0f s", passed.Seconds()), errors.Join(
		same(second[0].GetMessageId(), first[0].GetMessageId(), "id"),
		same(second[0].GetDeliveryAttempt(), 2, "attempt"),
		same(passed > 9*time.Second && passed < 20*time.Second, true, "in time"))
}

func stale(w *world) (string, error) {
	if _, err := w.sendOne("slow"); err != nil {
		return "", err
	}
	c, err := w.simple(rmq.SUB_ALL)
	if err != nil {
		return "", err
	}
	got, err := receive(c, 1, 32, 10*time.Second, false)
	if err != nil {
		return "", err
	}
	time.Sleep(11 * time.Second)
	// Not an acknowledgement: the client does not look at what that was answered.
	refusal, err := expect(invalidReceiptHandle, c.ChangeInvisibleDuration(got[0], 10*time.Second))
	if err != nil {
		return "", err
	}
	_, err = take(c, 1)
	return refusal, err
}

func push(w *world) (string, error) {
	b, err := w.push(always)
	if err != nil {
		return "", err
	}
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	for _, body := range numbered(100) {
		if _, err := send(p, w.message(body)); err != nil {
			return "", err
		}
	}
	var messages []*rmq.MessageView
	for range 100 {
		m, err := b.next()
		if err != nil {
			return "", err
		}
		messages = append(messages, m)
	}
	return "", errors.Join(sameSorted(messages, numbered(100)...), b.nothing(time.Second/2))
}

func pushInOrder(w *world) (string, error) {
	failures := 2
	b, err := w.push(func(m *rmq.MessageView) bool {
		if string(m.GetBody()) == "3" && failures > 0 {
			failures--
			return false
		}
		return true
	})
	if err != nil {
		return "", err
	}
	// What came with a message that fails the client hands out before its next try: none comes.
	if err := w.sendGroup(numbered(8)[:4]); err != nil {
		return "", err
	}
	if err := b.bodies("0", "1", "2", "3", "3", "3"); err != nil {
		return "", err
	}
	if err := w.sendGroup(numbered(8)[4:]); err != nil {
		return "", err
	}
	return "", b.bodies(numbered(8)[4:]...)
}

func pushRetry(w *world) (string, error) {
	b, err := w.push(func(m *rmq.MessageView) bool { return m.GetDeliveryAttempt() >= 3 })
	if err != nil {
		return "", err
	}
	if _, err := w.sendOne("stubborn"); err != nil {
		return "", err
	}
	for attempt := int32(1); attempt <= 3; attempt++ {
		m, err := b.next()
		if err != nil {
			return "", err
		}
		if err := same(m.GetDeliveryAttempt(), attempt, "attempt"); err != nil {
			return "", err
		}
	}
	return "", nil
}

// dies has a message of this group, or of none, fail until it is a dead letter.
func dies(group string) func(*world) (string, error) {
	return func(w *world) (string, error) {
		b, err := w.push(func(m *rmq.MessageView) bool { return string(m.GetBody()) != "poison" })
		if err != nil {
			return "", err
		}
		p, err := w.producer()
		if err != nil {
			return "", err
		}
		message := func(body string) *rmq.Message {
			m := w.message(body)
			if group != "" {
				m.SetMessageGroup(group)
			}
			return m
		}
		sent, err := send(p, message("poison"))
		if err != nil {
			return "", err
		}
		if err := b.bodies("poison", "poison", "poison"); err != nil {
			return "", err
		}
		var c rmq.SimpleConsumer
		err = persist(func() error { // there is no such topic before the first dead letter
			c, err = w.simpleOf("%DLQ%"+w.group, w.group+"-2", rmq.SUB_ALL)
			return err
		})
		if err != nil {
			return "", err
		}
		dead, err := take(c, 1)
		if err != nil {
			return "", err
		}
		if _, err := send(p, message("next")); err != nil {
			return "", err
		}
		return "", errors.Join(
			same(string(dead[0].GetBody()), "poison", "body"),
			same(dead[0].GetMessageId(), sent.MessageID, "id"),
			b.bodies("next"))
	}
}

func tags(w *world) (string, error) {
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	for _, tag := range []string{"Aa", "BB", "C"} { // the first two have the same Java hash
		m := w.message(tag)
		m.SetTag(tag)
		if _, err := send(p, m); err != nil {
			return "", err
		}
	}
	return w.filtered(rmq.NewFilterExpression("Aa || C"), "Aa", "C")
}

func sql(w *world) (string, error) {
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	for _, number := range numbered(6) {
		m := w.message(number)
		m.AddProperty("n", number)
		if _, err := send(p, m); err != nil {
			return "", err
		}
	}
	return w.filtered(rmq.NewFilterExpressionWithType("n > 1 AND n < 4", rmq.SQL92), "2", "3")
}

func (w *world) filtered(filter *rmq.FilterExpression, wanted ...string) (string, error) {
	c, err := w.simple(filter)
	if err != nil {
		return "", err
	}
	messages, err := take(c, len(wanted))
	if err != nil {
		return "", err
	}
	return "", sameSorted(messages, wanted...)
}

// overTLS comes when the other scenarios are over: the setting is the whole program's.
func overTLS(w *world) (string, error) {
	rmq.EnableSsl = true
	defer func() { rmq.EnableSsl = false }()
	b, err := w.push(always)
	if err != nil {
		return "", err
	}
	if _, err := w.sendOne("secret"); err != nil {
		return "", err
	}
	return "", b.bodies("secret")
}

// restart: a producer, a push consumer and what a simple consumer holds outlive the server's.
func restart(w *world) (string, error) {
	b, err := w.push(always)
	if err != nil {
		return "", err
	}
	holder, err := w.simpleOf(w.topic, w.group+"-2", rmq.SUB_ALL)
	if err != nil {
		return "", err
	}
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	if _, err := send(p, w.message("before")); err != nil {
		return "", err
	}
	if err := b.bodies("before"); err != nil {
		return "", err
	}
	if _, err := receive(holder, 1, 32, 10*time.Second, false); err != nil {
		return "", err
	}
	if !askRestart() {
		return "", errNoRestart
	}
	started := time.Now()
	err = persist(func() error {
		_, err := send(p, w.message("after"))
		return err
	})
	if err != nil {
		return "", err
	}
	if err := b.bodies("after"); err != nil {
		return "", err
	}
	detail := fmt.Sprintf("goes on after %.1f s", time.Since(started).Seconds())
	messages, err := take(holder, 2)
	if err != nil {
		return "", err
	}
	return detail, sameSorted(messages, "before", "after")
}
