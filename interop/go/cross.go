package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// cross sends the message of one label, or receives all: cross ACTION ADDRESS TOPIC GROUP LABEL COUNT.
func cross(arguments []string) error {
	w := &world{namesrv: arguments[2], run: arguments[4]}
	action, topic, label := arguments[1], arguments[3], arguments[5]
	if action == "send" {
		p, err := w.producer()
		if err != nil {
			return err
		}
		m := primitive.NewMessage(topic, []byte("from "+label+" é")).WithTag("red").WithKeys([]string{"k1", "k-" + label})
		m.WithProperty("mine", label)
		sent, err := p.SendSync(context.Background(), m)
		if err != nil {
			return err
		}
		printLine(map[string]string{"id": sent.MsgID})
		return nil
	}
	count, err := strconv.Atoi(arguments[6])
	if err != nil {
		return err
	}
	b := &inbox{}
	if _, err := w.pushInto(b, topic, everything); err != nil {
		return err
	}
	err = awaitFor(2*patience, fmt.Sprint(count, " messages"), func() bool { return len(b.all()) >= count })
	for _, m := range b.all() {
		printLine(map[string]string{"id": m.MsgId, "body": string(m.Body), "tag": m.GetTags(), "keys": m.GetKeys(), "mine": m.GetProperty("mine")})
	}
	return err
}
