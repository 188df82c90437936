//! One message for every other client, and theirs: `cross` ACTION ADDRESS TOPIC GROUP LABEL COUNT.

use std::collections::HashMap;

use crate::world::{all, quoted, Failure, World};

pub async fn run(arguments: &[String]) -> Result<(), Failure> {
    let [action, address, topic, group, label, count] = arguments else {
        return Err("six arguments, please".into());
    };
    let world = World::of(address, topic, group);
    if action == "send" {
        let message = world
            .message(&format!("from {label} é"))
            .set_tag("red")
            .set_keys(vec!["k1".to_string(), format!("k-{label}")])
            .set_properties(HashMap::from([("mine", label)]))
            .build()?;
        let receipt = world.producer().await?.send(message).await?;
        println!("{{\"id\": {}}}", quoted(receipt.message_id()));
        return Ok(());
    }
    for message in world.simple().await?.take(&all(), count.parse()?).await? {
        let text = |name: &str, value: &str| format!("\"{name}\": {}", quoted(value));
        let fields = [
            text("id", message.message_id()),
            text("body", &String::from_utf8_lossy(message.body())),
            text("tag", message.tag().unwrap_or("")),
            text("keys", &message.keys().join(" ")),
            text("mine", message.properties().get("mine").map_or("", String::as_str)),
        ];
        println!("{{{}}}", fields.join(", "));
    }
    Ok(())
}
