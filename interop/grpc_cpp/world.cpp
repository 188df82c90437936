#include "world.h"

#include <algorithm>
#include <regex>
#include <thread>

#include "rocketmq/CredentialsProvider.h"

namespace {

// Clients that start at the same time make this library crash.
std::mutex starting;

}  // namespace

std::string joined(Texts texts, bool sorted) {
  if (sorted) {
    std::sort(texts.begin(), texts.end());
  }
  std::string all;
  for (const auto& text : texts) {
    all += text + " ";
  }
  return all;
}

Texts numbered(int from, int to) {
  Texts texts;
  for (int number = from; number < to; number++) {
    texts.push_back(std::to_string(number));
  }
  return texts;
}

Texts bodies(const Received& messages) {
  Texts texts;
  for (const auto& message : messages) {
    texts.push_back(message->body());
  }
  return texts;
}

void Inbox::put(const Message& message) {
  std::lock_guard<std::mutex> lock(mutex_);
  waiting_.push_back({message.body(), message.id(), message.extension().delivery_attempt});
  arrived_.notify_one();
}

std::string Inbox::next(int* attempt, std::string* id) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!arrived_.wait_for(lock, PATIENCE, [this] { return !waiting_.empty(); })) {
    throw Failure("nothing arrived in 40 s");
  }
  const Arrival first = waiting_.front();
  waiting_.pop_front();
  if (attempt != nullptr) {
    *attempt = first.attempt;
  }
  if (id != nullptr) {
    *id = first.id;
  }
  return first.body;
}

void Inbox::bodies(const Texts& wanted) {
  for (const auto& body : wanted) {
    check(next(), body, "body");
  }
}

void Inbox::nothing(Clock::duration wait) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (arrived_.wait_for(lock, wait, [this] { return !waiting_.empty(); })) {
    throw Failure("too much arrived: " + waiting_.front().body);
  }
}

World::World(const std::string& scenario, const std::string& endpoint, const std::string& run)
    : topic(run + "-" + std::regex_replace(scenario, std::regex("[^A-Za-z0-9]+"), "-")),
      group("group-" + topic), endpoint_(endpoint) {
}

Configuration World::configuration() const {
  return Configuration::newBuilder()
      .withEndpoints(endpoint_)
      .withRequestTimeout(8s)
      .withCredentialsProvider(std::make_shared<StaticCredentialsProvider>("", ""))
      .withSsl(tls)
      .build();
}

Producer& World::producer() {
  if (producer_ == nullptr) {
    std::lock_guard<std::mutex> lock(starting);
    // Orphans that begin with "kept" are committed.
    auto checker = [](const Message& message) {
      return message.body().rfind("kept", 0) == 0 ? TransactionState::COMMIT : TransactionState::ROLLBACK;
    };
    producer_ = std::make_unique<Producer>(Producer::newBuilder()
                                               .withConfiguration(configuration())
                                               .withTopics({topic})
                                               .withTransactionChecker(checker)
                                               .build());
  }
  return *producer_;
}

SimpleConsumer World::simple(FilterExpression filter) const {
  return simple_of(topic, group, filter);
}

SimpleConsumer World::simple_of(const std::string& of, const std::string& by, FilterExpression filter) const {
  std::lock_guard<std::mutex> lock(starting);
  return SimpleConsumer::newBuilder()
      .withGroup(by)
      .withConfiguration(configuration())
      .subscribe(of, filter)
      .withAwaitDuration(10s)
      .build();
}

std::shared_ptr<Inbox> World::push(Judge judge) {
  auto inbox = std::make_shared<Inbox>();
  auto listener = [inbox, judge](const Message& message) {
    inbox->put(message);
    return judge(message) ? ConsumeResult::SUCCESS : ConsumeResult::FAILURE;
  };
  std::lock_guard<std::mutex> lock(starting);
  // Never ended: the program ends anyway.
  new PushConsumer(PushConsumer::newBuilder()
                       .withGroup(group)
                       .withConfiguration(configuration())
                       .subscribe(topic, FilterExpression("*"))
                       .withListener(listener)
                       .build());
  return inbox;
}

MessageBuilder World::message(const std::string& body) const {
  auto builder = Message::newBuilder();
  builder.withTopic(topic).withBody(body);
  return builder;
}

SendReceipt World::send(MessageConstPtr message) {
  std::error_code code;
  auto receipt = producer().send(std::move(message), code);
  succeed(code);
  return receipt;
}

Received receive(SimpleConsumer& consumer, std::size_t count, std::size_t batch, bool ack, Seconds invisible) {
  Received found;
  for (auto end = Clock::now() + PATIENCE; found.size() < count && Clock::now() < end;) {
    std::error_code code;
    Received messages;
    consumer.receive(batch, invisible, code, messages);
    if (code) {  // also that there is none
      std::this_thread::sleep_for(100ms);
    }
    for (const auto& message : messages) {
      found.push_back(message);
      if (ack) {
        consumer.ack(*message, code);
        succeed(code);
      }
    }
  }
  check(found.size(), count, "received");
  return found;
}

void persist(const std::function<void()>& act) {
  for (auto end = Clock::now() + PATIENCE;; std::this_thread::sleep_for(200ms)) {
    try {
      return act();
    } catch (const std::exception&) {
      if (Clock::now() > end) {
        throw;
      }
    }
  }
}

void succeed(const std::error_code& code) {
  if (code) {
    throw Failure(std::to_string(code.value()) + " " + code.message());
  }
}

std::string expect(int wanted, const std::error_code& code) {
  check(code.value(), wanted, "code");
  return std::to_string(code.value()) + " " + code.message();
}
