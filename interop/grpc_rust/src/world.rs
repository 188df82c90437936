//! What one scenario opens, the names it uses, and how it checks.

use std::error::Error;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use rocketmq::conf::{ClientOption, ProducerOption, SimpleConsumerOption};
use rocketmq::error::ClientError;
use rocketmq::model::common::{FilterExpression, FilterType};
use rocketmq::model::message::{MessageBuilder, MessageView};
use rocketmq::model::transaction::TransactionResolution;
use rocketmq::{Producer, SimpleConsumer};

pub type Failure = Box<dyn Error + Send + Sync>;
pub type Outcome = Result<String, Failure>;

pub const PATIENCE: Duration = Duration::from_secs(40); // the longest any awaited event may take

pub struct World {
    endpoint: String,
    pub topic: String,
    group: String,
    pub tls: bool,
}

impl World {
    pub fn new(scenario: &str, endpoint: &str, run: &str) -> World {
        let words: Vec<&str> = scenario.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let topic = format!("{run}-{}", words.join("-"));
        World::of(endpoint, &topic, &format!("group-{topic}"))
    }

    pub fn of(endpoint: &str, topic: &str, group: &str) -> World {
        let (endpoint, topic, group) = (endpoint.into(), topic.into(), group.into());
        World { endpoint, topic, group, tls: false }
    }

    fn client_option(&self) -> ClientOption {
        let mut option = ClientOption::default();
        // A certificate is for a name, not for an address.
        let name = if self.tls { "localhost" } else { "127.0.0.1" };
        option.set_access_url(self.endpoint.replace("127.0.0.1", name));
        option.set_enable_tls(self.tls);
        option.set_timeout(Duration::from_secs(8));
        // It is the request's deadline too, and less than 5 s before that are refused.
        option.set_long_polling_timeout(Duration::from_secs(10));
        option
    }

    fn producer_option(&self) -> ProducerOption {
        let mut option = ProducerOption::default();
        option.set_topics(vec![self.topic.clone()]);
        option
    }

    pub async fn producer(&self) -> Result<Producer, ClientError> {
        started(Producer::new(self.producer_option(), self.client_option())?).await
    }

    pub async fn trusting_producer(&self) -> Result<Producer, ClientError> {
        let mut option = self.producer_option();
        option.set_validate_message_type(false);
        started(Producer::new(option, self.client_option())?).await
    }

    /// Orphans that begin with "kept" are committed.
    pub async fn transaction_producer(&self) -> Result<Producer, ClientError> {
        let checker = |_: String, message: MessageView| {
            if message.body().starts_with(b"kept") {
                TransactionResolution::COMMIT
            } else {
                TransactionResolution::ROLLBACK
            }
        };
        let (producer, client) = (self.producer_option(), self.client_option());
        started(Producer::new_transaction_producer(producer, client, Box::new(checker))?).await
    }

    pub async fn simple(&self) -> Result<Consumer, ClientError> {
        let mut option = SimpleConsumerOption::default();
        option.set_topics(vec![self.topic.clone()]);
        option.set_consumer_group(&self.group);
        let mut consumer = SimpleConsumer::new(option, self.client_option())?;
        consumer.start().await?;
        Ok(Consumer { client: consumer, topic: self.topic.clone() })
    }

    pub fn message(&self, body: &str) -> MessageBuilder {
        MessageBuilder::builder().set_topic(&self.topic).set_body(body.as_bytes().to_vec())
    }
}

/// A consumer of one topic.
pub struct Consumer {
    pub client: SimpleConsumer,
    topic: String,
}

impl Consumer {
    pub async fn receive(
        &self,
        filter: &FilterExpression,
        invisible_s: u64,
    ) -> Result<Vec<MessageView>, ClientError> {
        self.client.receive_with(&self.topic, filter, 32, Duration::from_secs(invisible_s)).await
    }

    /// Receives one message and does not acknowledge it.
    pub async fn hold(&self, invisible_s: u64) -> Result<MessageView, Failure> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(message) = self.receive(&all(), invisible_s).await?.pop() {
                return Ok(message);
            }
        }
        Err("nothing to hold".into())
    }

    /// Receives and acknowledges until `count` messages are there.
    pub async fn take(
        &self,
        filter: &FilterExpression,
        count: usize,
    ) -> Result<Vec<MessageView>, Failure> {
        let (mut found, mut last) = (Vec::new(), String::new());
        let end = Instant::now() + PATIENCE;
        while found.len() < count && Instant::now() < end {
            let messages = match self.receive(filter, 15).await {
                Ok(messages) => messages,
                Err(error) => {
                    last = format!(" (last: {error})");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            for message in messages {
                self.client.ack(&message).await?;
                found.push(message);
            }
        }
        same(found.len(), count, &format!("received{last}"))?;
        Ok(found)
    }
}

async fn started(mut producer: Producer) -> Result<Producer, ClientError> {
    producer.start().await?;
    Ok(producer)
}

pub fn all() -> FilterExpression {
    FilterExpression::new(FilterType::Tag, "*")
}

pub fn bodies(messages: &[MessageView]) -> Vec<String> {
    messages.iter().map(|m| String::from_utf8_lossy(m.body()).into_owned()).collect()
}

pub fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

pub fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// Checks that it was refused and that the refusal names this code; what it said.
pub fn expect<T>(code: &str, result: Result<T, ClientError>) -> Outcome {
    match result {
        Ok(_) => Err("not refused".into()),
        Err(refusal) if refusal.to_string().contains(code) => Ok(refusal.to_string()),
        Err(other) => Err(other.into()),
    }
}

pub fn same<A: PartialEq<B> + Debug, B: Debug>(
    found: A,
    wanted: B,
    what: &str,
) -> Result<(), Failure> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, not {wanted:?}").into())
}

/// As JSON has it.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
