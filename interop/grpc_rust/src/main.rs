//! Scenarios of RocketMQ 5's Rust client; prints one JSON line a scenario.
//! Arguments: `--list`, or ENDPOINT RUN CLIENT.

mod cross;
mod world;

use std::collections::HashMap;
use std::env;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rocketmq::model::common::{FilterExpression, FilterType};
use rocketmq::model::message::MessageBuilder;
use rocketmq::model::transaction::Transaction;
use world::{all, bodies, expect, numbered, same, sorted, Outcome, World, PATIENCE};

async fn normal(world: World) -> Outcome {
    let message = world
        .message("hello")
        .set_tag("red")
        .set_keys(vec!["k1", "k2"])
        .set_properties(HashMap::from([("mine", "1")]))
        .build()?;
    let receipt = world.producer().await?.send(message).await?;
    let got = &world.simple().await?.take(&all(), 1).await?[0];
    same(got.body(), b"hello", "body")?;
    same(got.tag(), Some("red"), "tag")?;
    same(got.keys(), ["k1", "k2"], "keys")?;
    same(got.properties().get("mine").map(String::as_str), Some("1"), "property")?;
    same(got.properties().len(), 1, "properties")?;
    same(got.message_id(), receipt.message_id(), "id")?;
    same(got.delivery_attempt(), 1, "attempt")?;
    Ok(String::new())
}

async fn fifo(world: World) -> Outcome {
    let producer = world.producer().await?;
    for body in numbered(20) {
        producer.send(world.message(&body).set_message_group("one").build()?).await?;
    }
    let messages = world.simple().await?.take(&all(), 20).await?;
    same(bodies(&messages), numbered(20), "order")?;
    Ok(String::new())
}

async fn delayed(world: World) -> Outcome {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let message = world.message("later").set_delivery_timestamp(now as i64 + 4).build()?;
    world.producer().await?.send(message).await?;
    world.simple().await?.take(&all(), 1).await?;
    let late = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(now + 4))?;
    Ok(format!("{} ms after its time", late.as_millis()))
}

fn half(world: &World, body: &str) -> MessageBuilder {
    world.message(body).enable_transaction()
}

async fn transaction(world: World) -> Outcome {
    let (producer, consumer) = (world.transaction_producer().await?, world.simple().await?);
    let kept = producer.send_transaction_message(half(&world, "kept").build()?).await?;
    let gone = producer.send_transaction_message(half(&world, "gone").build()?).await?;
    kept.commit().await?;
    gone.rollback().await?;
    let messages = consumer.take(&all(), 1).await?;
    same(bodies(&messages), ["kept"], "bodies")?;
    same(consumer.receive(&all(), 15).await?.len(), 0, "more")?;
    Ok(String::new())
}

async fn orphan(world: World) -> Outcome {
    let (producer, consumer) = (world.transaction_producer().await?, world.simple().await?);
    for body in ["gone", "kept"] {
        producer.send_transaction_message(half(&world, body).build()?).await?;
    }
    let messages = consumer.take(&all(), 1).await?;
    same(bodies(&messages), ["kept"], "bodies")?;
    same(consumer.receive(&all(), 15).await?.len(), 0, "more")?;
    Ok(String::new())
}

async fn simple(world: World) -> Outcome {
    let producer = world.producer().await?;
    for body in numbered(50) {
        producer.send(world.message(&body).build()?).await?;
    }
    let messages = world.simple().await?.take(&all(), 50).await?;
    same(sorted(bodies(&messages)), sorted(numbered(50)), "bodies")?;
    Ok(String::new())
}

async fn batch(world: World) -> Outcome {
    let mut messages = Vec::new();
    for body in numbered(10) {
        messages.push(world.message(&body).build()?);
    }
    let receipts = world.producer().await?.batch_send(messages).await?;
    let found = world.simple().await?.take(&all(), 10).await?;
    same(sorted(bodies(&found)), sorted(numbered(10)), "bodies")?;
    Ok(format!("{} receipts", receipts.len()))
}

async fn stale(world: World) -> Outcome {
    world.producer().await?.send(world.message("slow").build()?).await?;
    let consumer = world.simple().await?;
    let got = consumer.hold(10).await?;
    tokio::time::sleep(Duration::from_secs(11)).await;
    let refusal = expect("INVALID_RECEIPT_HANDLE", consumer.client.ack(&got).await)?;
    same(consumer.take(&all(), 1).await?[0].delivery_attempt(), 2, "attempt")?;
    Ok(refusal)
}

async fn tags(world: World) -> Outcome {
    let producer = world.producer().await?;
    for tag in ["Aa", "BB", "C"] {
        // The first two have the same Java hash.
        producer.send(world.message(tag).set_tag(tag).build()?).await?;
    }
    let filter = FilterExpression::new(FilterType::Tag, "Aa || C");
    let messages = world.simple().await?.take(&filter, 2).await?;
    same(sorted(bodies(&messages)), ["Aa", "C"], "bodies")?;
    Ok(String::new())
}

async fn sql(world: World) -> Outcome {
    let producer = world.producer().await?;
    for number in numbered(6) {
        let properties = HashMap::from([("n", number.as_str())]);
        producer.send(world.message(&number).set_properties(properties).build()?).await?;
    }
    let filter = FilterExpression::new(FilterType::Sql, "n > 1 AND n < 4");
    let messages = world.simple().await?.take(&filter, 2).await?;
    same(sorted(bodies(&messages)), ["2", "3"], "bodies")?;
    Ok(String::new())
}

/// The client is told not to look at the route's types itself.
async fn wrong_type(world: World) -> Outcome {
    let producer = world.trusting_producer().await?;
    let sent = producer.send(world.message("x").set_message_group("g").build()?).await;
    expect("MESSAGE_PROPERTY_CONFLICT_WITH_TYPE", sent)
}

async fn wrong_topic(world: World) -> Outcome {
    let message = MessageBuilder::builder().set_topic("no-such-topic").set_body(b"x".to_vec());
    expect("TOPIC_NOT_FOUND", world.producer().await?.send(message.build()?).await)
}

async fn large(world: World) -> Outcome {
    // The client's connection takes no answer of more than 4 MiB.
    let (producer, body) = (world.producer().await?, "x".repeat(4 * 1024 * 1024 - 1000));
    producer.send(world.message(&body).build()?).await?;
    same(world.simple().await?.take(&all(), 1).await?[0].body().len(), body.len(), "size")?;
    let larger = "x".repeat(4 * 1024 * 1024 + 1);
    expect("", producer.send(world.message(&larger).build()?).await)
}

async fn over_tls(mut world: World) -> Outcome {
    world.tls = true;
    world.producer().await?.send(world.message("secret").build()?).await?;
    let messages = world.simple().await?.take(&all(), 1).await?;
    same(bodies(&messages), ["secret"], "bodies")?;
    Ok(String::new())
}

/// A producer and what a consumer holds outlive the server's restart.
async fn restart(world: World) -> Outcome {
    let (producer, consumer) = (world.producer().await?, world.simple().await?);
    producer.send(world.message("before").build()?).await?;
    consumer.hold(10).await?;
    println!("{{\"request\": \"restart\"}}");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() != "restarted" {
        return Err("skipped: --quick restarts nothing".into());
    }
    let started = Instant::now();
    loop {
        match producer.send(world.message("after").build()?).await {
            Ok(_) => break,
            Err(error) if started.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let messages = consumer.take(&all(), 2).await?;
    same(sorted(bodies(&messages)), ["after", "before"], "bodies")?;
    Ok(format!("goes on after {seconds:.1} s"))
}

const NAMES: [&str; 14] = [
    "gRPC send normal",
    "gRPC send FIFO",
    "gRPC send delayed",
    "gRPC transaction",
    "gRPC orphaned transaction",
    "gRPC simple consumer",
    "gRPC send batch",
    "gRPC stale receipt",
    "gRPC tags",
    "gRPC SQL92 filter",
    "gRPC wrong type",
    "gRPC wrong topic",
    "gRPC large body",
    "gRPC over TLS",
];
const LAST: &str = "gRPC server restart"; // nothing else may be under way meanwhile

async fn run(name: &str, world: World) -> Outcome {
    match name {
        "gRPC send normal" => normal(world).await,
        "gRPC send FIFO" => fifo(world).await,
        "gRPC send delayed" => delayed(world).await,
        "gRPC transaction" => transaction(world).await,
        "gRPC orphaned transaction" => orphan(world).await,
        "gRPC simple consumer" => simple(world).await,
        "gRPC send batch" => batch(world).await,
        "gRPC stale receipt" => stale(world).await,
        "gRPC tags" => tags(world).await,
        "gRPC SQL92 filter" => sql(world).await,
        "gRPC wrong type" => wrong_type(world).await,
        "gRPC wrong topic" => wrong_topic(world).await,
        "gRPC large body" => large(world).await,
        "gRPC over TLS" => over_tls(world).await,
        _ => restart(world).await,
    }
}

async fn report(name: &'static str, arguments: Vec<String>) {
    let started = Instant::now();
    let outcome = run(name, World::new(name, &arguments[1], &arguments[2])).await;
    let ok = outcome.is_ok();
    let detail = outcome.unwrap_or_else(|error| error.to_string());
    let detail: String = detail.chars().take(300).collect();
    println!(
        "{{\"client\": {:?}, \"scenario\": {name:?}, \"ok\": {ok}, \"skipped\": {}, \
         \"seconds\": {}, \"detail\": {}}}",
        arguments[3],
        detail.starts_with("skipped: "),
        started.elapsed().as_secs_f64(),
        world::quoted(&detail),
    );
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args().collect();
    if arguments.len() < 4 {
        NAMES.iter().chain([&LAST]).for_each(|name| println!("{name}"));
        return;
    }
    if arguments[1] == "cross" {
        if let Err(failure) = cross::run(&arguments[2..]).await {
            eprintln!("{failure}");
            std::process::exit(1);
        }
        std::process::exit(0);
    }
    let wanted = |name: &&str| arguments.len() < 5 || **name == arguments[4];
    let tasks: Vec<_> = NAMES
        .into_iter()
        .filter(wanted)
        .map(|name| tokio::spawn(report(name, arguments.clone())))
        .collect();
    for task in tasks {
        let _ = task.await;
    }
    report(LAST, arguments).await;
    std::process::exit(0); // the clients' tasks would go on
}
