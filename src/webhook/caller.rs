//! The call: one POST to an address that was checked, over within a time, read up to a size, following nobody anywhere.
//!
//! The client asks for addresses through [`Guard`] and through nothing else, once a call, because no connection is kept; so what was
//! checked is what is called, even if the name means something else a moment later.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, redirect};

use super::address::{Reach, Refused};
use super::sign::Secret;
use super::target::Target;

/// The longest that a call may take, from the look-up of the name to the end of the answer.
pub const CALL_WITHIN: Duration = Duration::from_secs(5);
/// What of an answer's body is read. It means nothing; reading it lets the receiver finish.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Addresses that a name may have.
const ADDRESSES_MAX: usize = 64;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const USER_AGENT: &str = concat!("stockade/", env!("CARGO_PKG_VERSION"));

pub type Looking = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// What a name means. Handed in, so that a test can be a name server that lies.
pub type Lookup = Arc<dyn Fn(String) -> Looking + Send + Sync>;

/// The operating system's answer.
pub fn by_system() -> Lookup {
    Arc::new(|host| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// There is no client to call with.
#[derive(Debug, thiserror::Error)]
#[error("no client for webhooks: {0}")]
pub struct CallerError(#[from] reqwest::Error);

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("no answer within five seconds")]
    TimeOut,
    #[error("{0}, and is not called")]
    Refused(Refused),
    #[error("nobody can be reached there")]
    Unreachable,
}

impl Failure {
    /// The word that is kept.
    pub fn as_str(self) -> &'static str {
        match self {
            Failure::TimeOut => "time_out",
            Failure::Refused(_) => "address_refused",
            Failure::Unreachable => "unreachable",
        }
    }
}

/// What is said in one call.
#[derive(Debug, Clone, Copy)]
pub struct Message<'m> {
    pub id: &'m str,
    pub timestamp_s: i64,
    pub body: &'m str,
}

/// Calls endpoints. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    public: Client,
    /// Where loopback is allowed.
    loopback: Option<(Client, Client)>,
    lookup: Lookup,
}

impl Caller {
    pub fn new(allow_loopback: bool, lookup: Lookup) -> Result<Caller, CallerError> {
        let client = |reach| client(Guard { lookup: lookup.clone(), reach });
        let loopback = match allow_loopback {
            true => Some((client(Reach::PublicAndLoopback)?, client(Reach::Loopback)?)),
            false => None,
        };
        Ok(Caller { public: client(Reach::Public)?, loopback, lookup })
    }

    pub fn allows_loopback(&self) -> bool {
        self.loopback.is_some()
    }

    /// Would it be called, as its name is understood now?
    pub async fn check(&self, target: &Target) -> Result<(), Failure> {
        if let Some(address) = target.literal() {
            return target.reach.check(address).map_err(Failure::Refused);
        }
        let looking = (self.lookup)(target.host().to_owned());
        match tokio::time::timeout(CALL_WITHIN, looking).await {
            Ok(Ok(found)) => checked(target.reach, &found).map(|_| ()).map_err(|why| match why {
                Unusable::Refused(refused) => Failure::Refused(refused),
                Unusable::Nothing => Failure::Unreachable,
            }),
            Ok(Err(_)) => Err(Failure::Unreachable),
            Err(_) => Err(Failure::TimeOut),
        }
    }

    /// Calls, signed with each of the secrets; the status of the answer, whatever it is.
    pub async fn post(
        &self,
        target: &Target,
        secrets: &[Secret],
        message: Message<'_>,
    ) -> Result<u16, Failure> {
        // An address needs no look-up, so nobody but us checks it.
        if let Some(address) = target.literal() {
            target.reach.check(address).map_err(Failure::Refused)?;
        }
        let client = match (target.reach, &self.loopback) {
            (Reach::PublicAndLoopback, Some((both, _))) => both,
            (Reach::Loopback, Some((_, only))) => only,
            _ => &self.public,
        };
        let Message { id, timestamp_s, body } = message;
        let signatures: Vec<String> =
            secrets.iter().map(|secret| secret.sign(id, timestamp_s, body)).collect();
        let call = client
            .post(target.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(WEBHOOK_ID, id)
            .header(WEBHOOK_TIMESTAMP, timestamp_s)
            .header(WEBHOOK_SIGNATURE, signatures.join(" "))
            .body(body.to_owned());
        let mut answer = call.send().await.map_err(|error| failure(&error))?;
        let mut read = 0;
        while let Ok(Some(piece)) = answer.chunk().await {
            read += piece.len();
            if read > ANSWER_BYTES_MAX {
                break;
            }
        }
        Ok(answer.status().as_u16())
    }
}

fn client(guard: Guard) -> Result<Client, reqwest::Error> {
    let encrypted = guard.reach != Reach::Loopback;
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    let roots = roots.map(|root| Certificate::from_der(root)).collect::<Result<Vec<_>, _>>()?;
    Client::builder()
        .user_agent(USER_AGENT)
        .https_only(encrypted)
        .tls_certs_only(roots)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(CALL_WITHIN)
        .pool_max_idle_per_host(0)
        .dns_resolver(Arc::new(guard))
        .build()
}

/// What a failed call failed of. The words of the client stay with it: they may hold the URL.
fn failure(error: &reqwest::Error) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Unusable::Refused(refused)) = error.downcast_ref::<Unusable>() {
            return Failure::Refused(*refused);
        }
        cause = error.source();
    }
    if error.is_timeout() { Failure::TimeOut } else { Failure::Unreachable }
}

/// Why no address of a name is called.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Refused(Refused),
    #[error("the name has no address")]
    Nothing,
}

/// All of them, if all may be called: a name with one bad address is a bad name.
fn checked(reach: Reach, found: &[IpAddr]) -> Result<Vec<SocketAddr>, Unusable> {
    let found = found.get(..ADDRESSES_MAX).unwrap_or(found);
    if found.is_empty() {
        return Err(Unusable::Nothing);
    }
    found
        .iter()
        .map(|address| reach.check(*address).map(|()| SocketAddr::new(*address, 0)))
        .collect::<Result<_, _>>()
        .map_err(Unusable::Refused)
}

/// Stands between the client and the names.
struct Guard {
    lookup: Lookup,
    reach: Reach,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (looking, reach) = ((self.lookup)(name.as_str().to_owned()), self.reach);
        Box::pin(async move {
            let addresses = checked(reach, &looking.await?)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(addresses: &'static [&'static str]) -> Lookup {
        Arc::new(move |_| {
            let found = addresses.iter().map(|address| address.parse().unwrap()).collect();
            Box::pin(async move { Ok(found) })
        })
    }

    async fn check(url: &str, addresses: &'static [&'static str]) -> Result<(), &'static str> {
        let caller = Caller::new(false, says(addresses)).unwrap();
        caller.check(&Target::parse(url, false).unwrap()).await.map_err(Failure::as_str)
    }

    #[tokio::test]
    async fn a_name_is_as_good_as_the_worst_of_its_addresses() {
        const URL: &str = "https://hooks.example.com";
        assert_eq!(check(URL, &["1.1.1.1", "2606:4700::1111"]).await, Ok(()));
        assert_eq!(check(URL, &["1.1.1.1", "10.0.0.1"]).await, Err("address_refused"));
        assert_eq!(check(URL, &["::ffff:127.0.0.1"]).await, Err("address_refused"));
        assert_eq!(check(URL, &[]).await, Err("unreachable"));
        assert_eq!(check("https://0x7f.1", &["1.1.1.1"]).await, Err("address_refused"));
        assert_eq!(check("https://[fd00::1]", &["1.1.1.1"]).await, Err("address_refused"));
        assert_eq!(check("https://1.1.1.1", &["10.0.0.1"]).await, Ok(()));
    }

    #[tokio::test]
    async fn what_may_not_be_called_is_not_called() {
        let message = Message { id: "evt_1", timestamp_s: 1, body: "{}" };
        for (url, found) in
            [("https://hooks.example.com:9443", "127.0.0.1"), ("https://127.0.0.1:9443", "1.1.1.1")]
        {
            let found = found.parse().unwrap();
            let lookup: Lookup = Arc::new(move |_| Box::pin(async move { Ok(vec![found]) }));
            let caller = Caller::new(false, lookup).unwrap();
            let target = Target::parse(url, false).unwrap();
            let told = caller.post(&target, &[Secret::new([1; 32])], message).await;
            assert!(matches!(told, Err(Failure::Refused(_))), "{told:?}");
        }
    }
}
