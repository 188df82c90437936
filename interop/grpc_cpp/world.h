// What one scenario opens, the names it uses, and how it checks.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "rocketmq/Configuration.h"
#include "rocketmq/Message.h"
#include "rocketmq/Producer.h"
#include "rocketmq/PushConsumer.h"
#include "rocketmq/SimpleConsumer.h"

using namespace ROCKETMQ_NAMESPACE;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::seconds;
using Texts = std::vector<std::string>;
using Received = std::vector<MessageConstSharedPtr>;

constexpr Seconds PATIENCE{40};  // the longest any awaited event may take

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Skipped : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <typename A, typename B>
void check(const A& found, const B& wanted, const std::string& what) {
  if (found == wanted) {
    return;
  }
  std::ostringstream text;
  text << what << ": " << found << ", not " << wanted;
  throw Failure(text.str());
}

std::string joined(Texts texts, bool sorted);
Texts numbered(int from, int to);
Texts bodies(const Received& messages);

// What a push consumer was given.
class Inbox {
public:
  void put(const Message& message);
  std::string next(int* attempt = nullptr, std::string* id = nullptr);
  void bodies(const Texts& wanted);
  void nothing(Clock::duration wait);

private:
  struct Arrival {
    std::string body, id;
    int attempt;
  };
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Arrival> waiting_;
};

using Judge = std::function<bool(const Message&)>;

class World {
public:
  World(const std::string& scenario, const std::string& endpoint, const std::string& run);

  Configuration configuration() const;
  Producer& producer();
  SimpleConsumer simple(FilterExpression filter = FilterExpression("*")) const;
  SimpleConsumer simple_of(const std::string& topic, const std::string& group,
                           FilterExpression filter = FilterExpression("*")) const;
  std::shared_ptr<Inbox> push(Judge judge = [](const Message&) { return true; });
  MessageBuilder message(const std::string& body) const;
  SendReceipt send(MessageConstPtr message);

  std::string topic, group;
  bool tls = false;

private:
  std::string endpoint_;
  std::unique_ptr<Producer> producer_;
};

// Receives until `count` messages are there.
Received receive(SimpleConsumer& consumer, std::size_t count, std::size_t batch = 32, bool ack = true,
                 Seconds invisible = 15s);

// Does it again until it does not throw.
void persist(const std::function<void()>& act);

// Throws what an error code says.
void succeed(const std::error_code& code);

// Checks that it is refused with this code; gives what the refusal says.
std::string expect(int wanted, const std::error_code& code);

// One message for every other client, and theirs.
void cross(char** arguments);
