package main

import (
	"strconv"
	"strings"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

// cross sends the message of one label, or receives all: cross ACTION ADDRESS TOPIC GROUP LABEL COUNT.
func cross(arguments []string) error {
	w := &world{arguments[2], arguments[3], arguments[4]}
	label := arguments[5]
	if arguments[1] == "send" {
		p, err := w.producer()
		if err != nil {
			return err
		}
		m := w.message("from " + label + " é")
		m.SetTag("red")
		m.SetKeys("k1", "k-"+label)
		m.AddProperty("mine", label)
		receipt, err := send(p, m)
		if err != nil {
			return err
		}
		printLine(map[string]string{"id": receipt.MessageID})
		return nil
	}
	count, err := strconv.Atoi(arguments[6])
	if err != nil {
		return err
	}
	c, err := w.simple(rmq.SUB_ALL)
	if err != nil {
		return err
	}
	messages, err := take(c, count)
	for _, m := range messages {
		printLine(map[string]string{
			"id": m.GetMessageId(), "body": string(m.GetBody()), "tag": *m.GetTag(),
			"keys": strings.Join(m.GetKeys(), " "), "mine": m.GetProperties()["mine"],
		})
	}
	return err
}
