package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

var background = context.Background()

func createTopic(w *world) (string, error) {
	topic, err := w.topic("create", 3)
	if err != nil {
		return "", err
	}
	a, err := admin.NewAdmin(admin.WithResolver(w.resolver()))
	if err != nil {
		return "", err
	}
	list, err := a.FetchAllTopicList(background)
	if err != nil {
		return "", err
	}
	if !slices.Contains(list.TopicList, topic) {
		return "", fmt.Errorf("the topic list does not name %s", topic)
	}
	if err := a.DeleteTopic(background, admin.WithTopicDelete(topic),
		admin.WithBrokerAddrDelete(w.broker), admin.WithNameSrvAddr([]string{w.namesrv})); err != nil {
		return "", fmt.Errorf("delete topic: %w", err)
	}
	return "", await("the topic to leave the list", func() bool {
		list, err := a.FetchAllTopicList(background)
		return err == nil && !slices.Contains(list.TopicList, topic)
	})
}

func sendSync(w *world) (string, error) {
	topic, err := w.topic("sync", 4)
	if err != nil {
		return "", err
	}
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	defer p.Shutdown()
	want := bodies("sync", 20)
	sent := map[string]*primitive.SendResult{}
	for i, body := range want {
		m := primitive.NewMessage(topic, []byte(body)).WithTag("T" + strconv.Itoa(i%3)).WithKeys([]string{"k" + strconv.Itoa(i), "all"})
		m.WithProperty("user", "value "+strconv.Itoa(i))
		m.Flag = int32(i)
		if sent[body], err = p.SendSync(background, m); err != nil {
			return "", err
		}
		if sent[body].Status != primitive.SendOK {
			return "", fmt.Errorf("send status %v", sent[body].Status)
		}
	}
	got, err := w.arrivals(topic, want, everything)
	if err != nil {
		return "", err
	}
	for _, m := range got {
		i := slices.Index(want, string(m.Body))
		r := sent[string(m.Body)]
		switch {
		case m.GetTags() != "T"+strconv.Itoa(i%3), m.GetKeys() != fmt.Sprintf("k%d all", i),
			m.GetProperty("user") != "value "+strconv.Itoa(i), m.Flag != int32(i), m.ReconsumeTimes != 0:
			return "", fmt.Errorf("message %d came as %v", i, m)
		case m.MsgId != r.MsgID, m.OffsetMsgId != r.OffsetMsgID, m.QueueOffset != r.QueueOffset, m.Queue.QueueId != r.MessageQueue.QueueId:
			return "", fmt.Errorf("sent as %v, came as %s %s queue %d offset %d", r, m.MsgId, m.OffsetMsgId, m.Queue.QueueId, m.QueueOffset)
		}
	}
	return "", nil
}

func sendAsync(w *world) (string, error) {
	topic, err := w.topic("async", 4)
	if err != nil {
		return "", err
	}
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	defer p.Shutdown()
	want := bodies("async", 50)
	var group sync.WaitGroup
	failures := make(chan error, len(want))
	for _, body := range want {
		group.Add(1)
		if err := p.SendAsync(background, func(_ context.Context, r *primitive.SendResult, err error) {
			defer group.Done()
			if err == nil && r.Status != primitive.SendOK {
				err = fmt.Errorf("send status %v", r.Status)
			}
			failures <- err
		}, primitive.NewMessage(topic, []byte(body))); err != nil {
			return "", err
		}
	}
	group.Wait()
	for range want {
		if err := <-failures; err != nil {
			return "", err
		}
	}
	_, err = w.arrivals(topic, want, everything)
	return "", err
}

func sendOneWay(w *world) (string, error) {
	topic, err := w.topic("oneway", 4)
	if err != nil {
		return "", err
	}
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	defer p.Shutdown()
	// A broker that started just now may drop what waits 200 ms while every scenario begins at once,
	// and one-way nobody hears of it.
	time.Sleep(3 * time.Second)
	want := bodies("one-way", 20)
	for _, body := range want {
		if err := p.SendOneWay(background, primitive.NewMessage(topic, []byte(body))); err != nil {
			return "", err
		}
	}
	_, err = w.arrivals(topic, want, everything)
	return "", err
}

func sendToQueue(w *world) (string, error) {
	topic, err := w.topic("queue", 4)
	if err != nil {
		return "", err
	}
	p, err := w.producer(producer.WithQueueSelector(producer.NewManualQueueSelector()))
	if err != nil {
		return "", err
	}
	defer p.Shutdown()
	want := bodies("queue", 12)
	for i, body := range want {
		m := primitive.NewMessage(topic, []byte(body))
		m.Queue = &primitive.MessageQueue{Topic: topic, BrokerName: w.brokerName(topic), QueueId: i % 4}
		r, err := p.SendSync(background, m)
		if err != nil {
			return "", err
		}
		if r.MessageQueue.QueueId != i%4 || r.QueueOffset != int64(i/4) {
			return "", fmt.Errorf("sent %d to queue %d, answered %v", i, i%4, r)
		}
	}
	got, err := w.arrivals(topic, want, everything)
	for _, m := range got {
		if i := slices.Index(want, string(m.Body)); m.Queue.QueueId != i%4 {
			return "", fmt.Errorf("message %d came from queue %d", i, m.Queue.QueueId)
		}
	}
	return "", err
}

func (w *world) brokerName(topic string) string {
	a, _ := admin.NewAdmin(admin.WithResolver(w.resolver()))
	queues, err := a.FetchPublishMessageQueues(background, topic)
	if err != nil || len(queues) == 0 {
		return ""
	}
	return queues[0].BrokerName
}

func sendBySelector(w *world) (string, error) {
	topic, err := w.topic("selector", 4)
	if err != nil {
		return "", err
	}
	p, err := w.producer(producer.WithQueueSelector(producer.NewHashQueueSelector()))
	if err != nil {
		return "", err
	}
	defer p.Shutdown()
	want := bodies("selector", 24)
	for i, body := range want {
		if _, err := p.SendSync(background, primitive.NewMessage(topic, []byte(body)).WithShardingKey("order "+strconv.Itoa(i%6))); err != nil {
			return "", err
		}
	}
	got, err := w.arrivals(topic, want, everything)
	queues := map[string]int{}
	for _, m := range got {
		if queue, seen := queues[m.GetShardingKey()]; seen && queue != m.Queue.QueueId {
			return "", fmt.Errorf("%s is in queues %d and %d", m.GetShardingKey(), queue, m.Queue.QueueId)
		}
		queues[m.GetShardingKey()] = m.Queue.QueueId
	}
	if err == nil && len(queues) != 6 {
		err = fmt.Errorf("6 sharding keys went out, %d came back", len(queues))
	}
	return "", err
}

func sendBatch(w *world) (string, error) {
	topic, err := w.topic("batch", 2)
	if err != nil {
		return "", err
	}
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	defer p.Shutdown()
	want := bodies("batch", 10)
	var batch []*primitive.Message
	for i, body := range want {
		batch = append(batch, primitive.NewMessage(topic, []byte(body)).WithTag("B").WithKeys([]string{strconv.Itoa(i)}))
	}
	r, err := p.SendSync(background, batch...)
	if err != nil {
		return "", err
	}
	if ids := len(strings.Split(r.OffsetMsgID, ",")); ids != len(want) {
		return "", fmt.Errorf("%d messages sent, %d ids answered: %v", len(want), ids, r)
	}
	got, err := w.arrivals(topic, want, everything)
	for _, m := range got {
		i := slices.Index(want, string(m.Body))
		if m.GetTags() != "B" || m.GetKeys() != strconv.Itoa(i) || m.QueueOffset != int64(i) || m.Queue.QueueId != r.MessageQueue.QueueId {
			return "", fmt.Errorf("message %d came as %v", i, m)
		}
	}
	return "", err
}

func compressedBody(w *world) (string, error) {
	topic, err := w.topic("compressed", 1)
	if err != nil {
		return "", err
	}
	p, err := w.producer()
	if err != nil {
		return "", err
	}
	defer p.Shutdown()
	body := strings.Repeat("a long body ", 2000)
	if _, err := p.SendSync(background, primitive.NewMessage(topic, []byte(body))); err != nil {
		return "", err
	}
	got, err := w.arrivals(topic, []string{body}, everything)
	if err == nil && int(got[0].StoreSize) > len(body)/2 {
		err = fmt.Errorf("stored in %d bytes, not compressed", got[0].StoreSize)
	}
	return "", err
}

func transaction(w *world) (string, error) {
	topic, err := w.topic("transaction", 2)
	if err != nil {
		return "", err
	}
	p, err := producer.NewTransactionProducer(localTransaction{},
		producer.WithNsResolver(w.resolver()), producer.WithGroupName(w.name("producers")),
		producer.WithInstanceName(w.name("instance")), producer.WithRetry(1))
	if err != nil {
		return "", err
	}
	if err := p.Start(); err != nil {
		return "", err
	}
	defer p.Shutdown()
	for i := range 9 {
		verdict := []string{"commit", "rollback", "ask"}[i%3]
		body := fmt.Sprintf("%s %d", verdict, i)
		if _, err := p.SendMessageInTransaction(background, primitive.NewMessage(topic, []byte(body)).WithTag(verdict)); err != nil {
			return "", err
		}
	}
	_, err = w.arrivals(topic, []string{"commit 0", "ask 2", "commit 3", "ask 5", "commit 6", "ask 8"}, everything)
	return "", err
}

type localTransaction struct{}

func (localTransaction) ExecuteLocalTransaction(m *primitive.Message) primitive.LocalTransactionState {
	switch m.GetTags() {
	case "commit":
		return primitive.CommitMessageState
	case "rollback":
		return primitive.RollbackMessageState
	}
	return primitive.UnknowState
}

func (localTransaction) CheckLocalTransaction(m *primitive.MessageExt) primitive.LocalTransactionState {
	if m.GetTags() == "ask" {
		return primitive.CommitMessageState
	}
	return primitive.RollbackMessageState
}
