// Scenarios of RocketMQ 5's C++ client; prints one JSON line a scenario.
// Arguments: --list, or ENDPOINT RUN CLIENT.

#include <atomic>
#include <iostream>
#include <sstream>
#include <thread>

#include "rocketmq/ErrorCode.h"
#include "rocketmq/Logger.h"
#include "world.h"

namespace {

std::string normal(World& world) {
  auto receipt = world.send(
      world.message("hello").withTag("red").withKeys({"k1", "k2"}).withProperties({{"mine", "1"}}).build());
  auto consumer = world.simple();
  auto got = receive(consumer, 1)[0];
  check(got->body(), "hello", "body");
  check(got->tag(), "red", "tag");
  check(joined(got->keys(), false), "k1 k2 ", "keys");
  check(got->properties().size(), 1U, "properties");
  check(got->properties().at("mine"), "1", "property");
  check(got->id(), receipt.message_id, "id");
  check(got->extension().delivery_attempt, 1, "attempt");
  return "";
}

void send_group(World& world, const Texts& bodies) {
  for (const auto& body : bodies) {
    world.send(world.message(body).withGroup("one").build());
  }
}

std::string fifo(World& world) {
  send_group(world, numbered(0, 20));
  auto consumer = world.simple();
  check(joined(bodies(receive(consumer, 20)), false), joined(numbered(0, 20), false), "order");
  return "";
}

std::string delayed(World& world) {
  auto inbox = world.push();
  auto due = std::chrono::system_clock::now() + 4s;
  world.send(world.message("later").availableAfter(due).build());
  inbox->next();
  auto late = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now() - due).count();
  check(late >= 0, true, "late");
  return std::to_string(late) + " ms after its time";
}

std::string priority(World& world) {
  for (int number : {1, 3, 0, 2}) {
    world.send(world.message(std::to_string(number)).withPriority(number).build());
  }
  auto consumer = world.simple();
  std::string order;
  for (int i = 0; i < 4; i++) {
    order += receive(consumer, 1, 1)[0]->body();
  }
  check(order, "3210", "order");
  return "";
}

std::string recall(World& world) {
  auto inbox = world.push();
  auto due = std::chrono::system_clock::now() + 6s;
  auto receipt = world.send(world.message("taken back").availableAfter(due).build());
  world.send(world.message("kept").availableAfter(due).build());
  std::error_code code;
  auto taken = world.producer().recall(world.topic, receipt.recall_handle, code);
  succeed(code);
  check(taken.message_id, receipt.message_id, "id");
  inbox->bodies({"kept"});
  inbox->nothing(1s);
  return "";
}

TransactionPtr half(World& world, const std::string& body) {
  auto transaction = world.producer().beginTransaction();
  std::error_code code;
  world.producer().send(world.message(body).build(), code, *transaction);
  succeed(code);
  return transaction;
}

std::string transaction(World& world) {
  auto inbox = world.push();
  auto kept = half(world, "kept"), gone = half(world, "gone");
  inbox->nothing(1s);
  check(kept->commit(), true, "commit");
  check(gone->rollback(), true, "rollback");
  inbox->bodies({"kept"});
  inbox->nothing(1s);
  return "";
}

std::string orphan(World& world) {
  auto inbox = world.push();
  auto gone = half(world, "gone"), kept = half(world, "kept");
  inbox->bodies({"kept"});
  inbox->nothing(1s);
  return "";
}

std::string simple(World& world) {
  for (const auto& body : numbered(0, 50)) {
    world.send(world.message(body).build());
  }
  auto consumer = world.simple();
  check(joined(bodies(receive(consumer, 50)), true), joined(numbered(0, 50), true), "bodies");
  return "";
}

std::string invisible(World& world) {
  world.send(world.message("again").build());
  auto consumer = world.simple();
  auto first = receive(consumer, 1, 32, false, 30s)[0];
  auto started = Clock::now();
  std::error_code code;
  std::string handle = first->extension().receipt_handle;
  consumer.changeInvisibleDuration(*first, handle, 10s, code);
  succeed(code);
  auto second = receive(consumer, 1)[0];
  auto seconds = std::chrono::duration_cast<Seconds>(Clock::now() - started).count();
  check(second->id(), first->id(), "id");
  check(second->extension().delivery_attempt, 2, "attempt");
  check(seconds >= 9 && seconds <= 20, true, "in time");
  return "back after " + std::to_string(seconds) + " s";
}

std::string stale(World& world) {
  world.send(world.message("slow").build());
  auto consumer = world.simple();
  auto got = receive(consumer, 1, 32, false, 10s)[0];
  std::this_thread::sleep_for(11s);
  std::error_code code;
  consumer.ack(*got, code);
  auto refusal = expect(static_cast<int>(ErrorCode::InvalidReceiptHandle), code);
  receive(consumer, 1);
  return refusal;
}

std::string push(World& world) {
  auto inbox = world.push();
  for (const auto& body : numbered(0, 100)) {
    world.send(world.message(body).build());
  }
  Texts found;
  while (found.size() < 100) {
    found.push_back(inbox->next());
  }
  check(joined(found, true), joined(numbered(0, 100), true), "bodies");
  inbox->nothing(500ms);
  return "";
}

std::string push_in_order(World& world) {
  auto left = std::make_shared<std::atomic<int>>(2);
  auto inbox = world.push([left](const Message& message) { return message.body() != "3" || (*left)-- <= 0; });
  send_group(world, numbered(0, 8));
  inbox->bodies({"0", "1", "2", "3", "3", "3", "4", "5", "6", "7"});
  return "";
}

std::string push_retry(World& world) {
  auto inbox = world.push([](const Message& message) { return message.extension().delivery_attempt >= 3; });
  world.send(world.message("stubborn").build());
  for (int wanted : {1, 2, 3}) {
    int attempt = 0;
    inbox->next(&attempt);
    check(attempt, wanted, "attempt");
  }
  return "";
}

// Not in order: there the client tries a message again for ever.
std::string dies(World& world) {
  auto inbox = world.push([](const Message& message) { return message.body() != "poison"; });
  auto sent = world.send(world.message("poison").build());
  inbox->bodies({"poison", "poison", "poison"});
  auto consumer = world.simple_of("%DLQ%" + world.group, world.group + "-2");
  auto dead = receive(consumer, 1);
  check(dead[0]->body(), "poison", "body");
  check(dead[0]->id(), sent.message_id, "id");
  world.send(world.message("next").build());
  inbox->bodies({"next"});
  return "";
}

std::string tags(World& world) {
  for (const std::string tag : {"Aa", "BB", "C"}) {  // the first two have the same Java hash
    world.send(world.message(tag).withTag(tag).build());
  }
  auto consumer = world.simple(FilterExpression("Aa || C"));
  check(joined(bodies(receive(consumer, 2)), true), "Aa C ", "bodies");
  return "";
}

std::string sql(World& world) {
  for (const auto& number : numbered(0, 6)) {
    world.send(world.message(number).withProperties({{"n", number}}).build());
  }
  auto consumer = world.simple(FilterExpression("n > 1 AND n < 4", ExpressionType::SQL92));
  check(joined(bodies(receive(consumer, 2)), true), "2 3 ", "bodies");
  return "";
}

std::string refused(World& world, MessageConstPtr message) {
  std::error_code code;
  world.producer().send(std::move(message), code);
  check(static_cast<bool>(code), true, "refused");
  return std::to_string(code.value()) + " " + code.message();
}

std::string wrong_type(World& world) {
  return refused(world, world.message("x").withGroup("g").build());
}

std::string wrong_topic(World& world) {
  std::error_code code;
  world.producer().send(Message::newBuilder().withTopic("no-such-topic").withBody("x").build(), code);
  return expect(static_cast<int>(ErrorCode::NotFound), code);
}

std::string large(World& world) {
  std::string body(4 * 1024 * 1024, 'x');
  world.send(world.message(body).build());
  auto consumer = world.simple();
  check(receive(consumer, 1)[0]->body().size(), body.size(), "size");
  return refused(world, world.message(body + "x").build());
}

std::string over_tls(World& world) {
  world.tls = true;
  auto inbox = world.push();
  world.send(world.message("secret").build());
  inbox->bodies({"secret"});
  return "";
}

// A producer, a push consumer and what a simple consumer holds outlive the server's restart.
std::string restart(World& world) {
  auto inbox = world.push();
  auto holder = world.simple_of(world.topic, world.group + "-2");
  world.send(world.message("before").build());
  inbox->bodies({"before"});
  receive(holder, 1, 32, false, 10s);
  std::cout << "{\"request\": \"restart\"}" << std::endl;
  std::string answer;
  std::getline(std::cin, answer);
  if (answer != "restarted") {
    throw Skipped("--quick restarts nothing");
  }
  auto started = Clock::now();
  persist([&] { world.send(world.message("after").build()); });
  inbox->bodies({"after"});
  auto passed = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - started).count();
  check(joined(bodies(receive(holder, 2)), true), "after before ", "bodies");
  return "goes on after " + std::to_string(passed) + " ms";
}

struct Scenario {
  std::string name;
  std::function<std::string(World&)> run;
};

const std::vector<Scenario> SCENARIOS{
    {"gRPC send normal", normal},
    {"gRPC send FIFO", fifo},
    {"gRPC send delayed", delayed},
    {"gRPC priority", priority},
    {"gRPC recall", recall},
    {"gRPC transaction", transaction},
    {"gRPC orphaned transaction", orphan},
    {"gRPC simple consumer", simple},
    {"gRPC invisible time", invisible},
    {"gRPC stale receipt", stale},
    {"gRPC push consumer", push},
    {"gRPC push in order", push_in_order},
    {"gRPC push retry", push_retry},
    {"gRPC dead letter", dies},
    {"gRPC tags", tags},
    {"gRPC SQL92 filter", sql},
    {"gRPC wrong type", wrong_type},
    {"gRPC wrong topic", wrong_topic},
    {"gRPC large body", large},
    {"gRPC over TLS", over_tls},
    {"gRPC server restart", restart},
};

std::string quoted(const std::string& text) {
  std::string all = "\"";
  for (char c : text.substr(0, 300)) {
    if (c == '"' || c == '\\') {
      all += '\\';
    }
    all += c < ' ' ? ' ' : c;
  }
  return all + "\"";
}

void report(const Scenario& scenario, char** arguments) {
  auto started = Clock::now();
  std::string detail;
  bool ok = false, skipped = false;
  // Never ended: this client's destructors wait for long polls.
  auto* world = new World(scenario.name, arguments[1], arguments[2]);
  try {
    detail = scenario.run(*world);
    ok = true;
  } catch (const Skipped& reason) {
    detail = reason.what();
    skipped = true;
  } catch (const std::exception& failure) {
    detail = failure.what();
  }
  std::chrono::duration<double> seconds = Clock::now() - started;
  std::ostringstream line;
  line << "{\"client\": " << quoted(arguments[3]) << ", \"scenario\": " << quoted(scenario.name)
       << ", \"ok\": " << (ok ? "true" : "false") << ", \"skipped\": " << (skipped ? "true" : "false")
       << ", \"seconds\": " << seconds.count() << ", \"detail\": " << quoted(detail) << "}\n";
  // In one piece: the library's threads write their errors to the same stream.
  std::cout << line.str() << std::flush;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) {
    for (const auto& scenario : SCENARIOS) {
      std::cout << scenario.name << std::endl;
    }
    return 0;
  }
  auto& logger = getLogger();
  logger.setConsoleLevel(Level::Error);
  logger.setLevel(Level::Warn);
  logger.init();
  if (std::string(arguments[1]) == "cross") {
    cross(arguments + 2);
    std::_Exit(0);
  }
  for (const auto& scenario : SCENARIOS) {
    if (scenario.name == arguments[4]) {
      report(scenario, arguments);
    }
  }
  std::_Exit(0);  // the clients' threads would go on
}
