// One message for every other client, and theirs: cross ACTION ADDRESS TOPIC GROUP LABEL COUNT.

#include <iostream>

#include "world.h"

void cross(char** arguments) {
  const std::string action = arguments[0], label = arguments[4];
  World world("", arguments[1], "");
  world.topic = arguments[2];
  world.group = arguments[3];
  if (action == "send") {
    auto receipt = world.send(world.message("from " + label + " \u00e9")
                                  .withTag("red")
                                  .withKeys({"k1", "k-" + label})
                                  .withProperties({{"mine", label}})
                                  .build());
    std::cout << "{\"id\": \"" << receipt.message_id << "\"}" << std::endl;
    return;
  }
  auto consumer = world.simple();
  for (const auto& message : receive(consumer, std::stoul(arguments[5]))) {
    auto keys = joined(message->keys(), false);
    keys.pop_back();
    std::cout << "{\"id\": \"" << message->id() << "\", \"body\": \"" << message->body() << "\", \"tag\": \""
              << message->tag() << "\", \"keys\": \"" << keys << "\", \"mine\": \""
              << message->properties().at("mine") << "\"}" << std::endl;
  }
}
