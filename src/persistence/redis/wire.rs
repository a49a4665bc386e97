//! How Redis is reached: one server, a cluster, or the one that sentinels name; and how commands travel there.
//!
//! Always true: small writes leave at once (no Nagle), and each answer has its time. To one server many commands go as one pipeline; in
//! a cluster each goes to the server that has its key, all at once.

use futures_util::future::try_join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, Script,
    ServerErrorKind, TlsMode, Value,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use super::mirror::SCRIPTS;
use super::rate::TRIED_SCRIPT;
use super::{ANSWER_WITHIN, CONNECT_WITHIN, NoRedis};
use crate::config;

/// Commands that wait to be sent over one connection; who finds no room waits no longer than for an answer.
const WAITING_MAX: usize = 1_024;

/// Where connections come from.
pub(super) enum Door {
    Server(Client),
    Cluster { client: Box<ClusterClient>, nodes: Vec<Client> },
    Sentinel { sentinels: Vec<ConnectionInfo>, master: String, server: SentinelNodeConnectionInfo },
}

/// A connection that many use at a time.
#[derive(Clone)]
pub(super) enum Wire {
    One(MultiplexedConnection),
    Many(ClusterConnection),
}

fn info(url: &SecretString) -> Result<ConnectionInfo, RedisError> {
    let info = url.expose_secret().into_connection_info()?;
    // Nobody is told which library this is: the user would need a right for it.
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp()))
}

fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn settings() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_WITHIN))
        .set_response_timeout(Some(ANSWER_WITHIN))
        .set_pipeline_buffer_size(WAITING_MAX)
}

impl Door {
    pub(super) fn to(place: &config::Redis) -> Result<Door, RedisError> {
        Ok(match place {
            config::Redis::Server(url) => Door::Server(Client::open(info(url)?)?),
            config::Redis::Cluster(urls) => {
                let infos = urls.iter().map(info).collect::<Result<Vec<_>, _>>()?;
                let client = Box::new(
                    ClusterClient::builder(infos.clone())
                        .tcp_settings(tcp())
                        .connection_timeout(CONNECT_WITHIN)
                        .response_timeout(ANSWER_WITHIN)
                        .overall_response_timeout(Some(ANSWER_WITHIN))
                        .build()?,
                );
                let nodes = infos.into_iter().map(Client::open).collect::<Result<_, _>>()?;
                Door::Cluster { client, nodes }
            }
            config::Redis::Sentinel { sentinels, master, server } => {
                let at = info(server)?;
                let mut speak = SentinelNodeConnectionInfo::default()
                    .set_redis_connection_info(at.redis_settings().clone())
                    .set_tcp_settings(tcp());
                if server.expose_secret().starts_with("rediss:") {
                    speak = speak.set_tls_mode(TlsMode::Secure);
                }
                let sentinels = sentinels.iter().map(info).collect::<Result<_, _>>()?;
                Door::Sentinel { sentinels, master: master.clone(), server: speak }
            }
        })
    }

    pub(super) async fn open(&self) -> Result<Wire, RedisError> {
        Ok(match self {
            Door::Server(client) => {
                Wire::One(client.get_multiplexed_async_connection_with_config(&settings()).await?)
            }
            Door::Cluster { client, .. } => Wire::Many(client.get_async_connection().await?),
            Door::Sentinel { .. } => {
                let client = self.server().await?;
                Wire::One(client.get_multiplexed_async_connection_with_config(&settings()).await?)
            }
        })
    }

    /// Where channels are listened to. In a cluster what is published on one server is heard on all.
    pub(super) async fn listen(&self) -> Result<redis::aio::PubSub, RedisError> {
        let Door::Cluster { nodes, .. } = self else {
            return self.server().await?.get_async_pubsub().await;
        };
        let mut failed = None;
        for node in nodes {
            match node.get_async_pubsub().await {
                Ok(pubsub) => return Ok(pubsub),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(no_nodes))
    }

    /// The server that takes writes.
    async fn server(&self) -> Result<Client, RedisError> {
        match self {
            Door::Server(client) => Ok(client.clone()),
            Door::Cluster { nodes, .. } => nodes.first().cloned().ok_or_else(no_nodes),
            Door::Sentinel { sentinels, master, server } => {
                let asking = SentinelClient::build(
                    sentinels.clone(),
                    master,
                    Some(server.clone()),
                    SentinelServerType::Master,
                );
                asking?.async_get_client().await
            }
        }
    }
}

fn no_nodes() -> RedisError {
    (ErrorKind::InvalidClientConfig, "a cluster without nodes").into()
}

impl Wire {
    /// Makes the scripts known, so that from here on their names suffice.
    pub(super) async fn teach(&self) -> Result<(), NoRedis> {
        for script in SCRIPTS.into_iter().chain([&TRIED_SCRIPT]) {
            match self.clone() {
                Wire::One(mut one) => script.load_async(&mut one).await?,
                Wire::Many(mut many) => script.load_async(&mut many).await?,
            };
        }
        Ok(())
    }

    pub(super) async fn ping(&self) -> Result<(), NoRedis> {
        self.ask(&redis::cmd("PING")).await.map(drop)
    }

    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, NoRedis> {
        let asked = async {
            match self.clone() {
                Wire::One(mut one) => one.req_packed_command(command).await,
                Wire::Many(mut many) => many.req_packed_command(command).await,
            }
        };
        let answer = timeout(ANSWER_WITHIN, asked).await.map_err(|_| NoRedis::Late)??;
        Ok(answer.extract_error()?)
    }

    /// All of them or an error; some may have been done then.
    pub(super) async fn ask_all(&self, commands: &[Cmd]) -> Result<Vec<Value>, NoRedis> {
        // A pipeline of none is refused.
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        if let Wire::One(one) = self {
            let mut pipeline = redis::Pipeline::with_capacity(commands.len());
            for command in commands {
                pipeline.add_command(command.clone());
            }
            let mut one = one.clone();
            let asked = pipeline.query_async(&mut one);
            return Ok(timeout(ANSWER_WITHIN, asked).await.map_err(|_| NoRedis::Late)??);
        }
        try_join_all(commands.iter().map(|command| self.ask(command))).await
    }

    /// Calls of scripts. A server that has forgotten them is taught again, once: a call of a script that is not there has done nothing,
    /// and those beside it may be done twice.
    pub(super) async fn call_all(&self, commands: &[Cmd]) -> Result<Vec<Value>, NoRedis> {
        match self.ask_all(commands).await {
            Err(NoRedis::Failed(error)) if unknown_script(&error) => {
                self.teach().await?;
                self.ask_all(commands).await
            }
            answer => answer,
        }
    }

    /// A call of a script, and behind it another command: to one server in one round trip.
    pub(super) async fn call_in_order(&self, call: Cmd, then: Cmd) -> Result<(Value, Value), NoRedis> {
        let called = match self {
            Wire::One(_) => self.call_all(&[call, then]).await?,
            Wire::Many(_) => {
                let mut called = self.call_all(&[call]).await?;
                called.push(self.ask(&then).await?);
                called
            }
        };
        let mut called = called.into_iter();
        Ok((called.next().unwrap_or(Value::Nil), called.next().unwrap_or(Value::Nil)))
    }
}

fn unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// A call by name.
pub(super) fn call(script: &Script, key: &str) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.get_hash()).arg(1).arg(key);
    command
}
