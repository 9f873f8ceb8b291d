//! Forwards calls to another cloud that speaks the protocol of AWS, such as [`crate::Moto`]. It owns
//! the connections to that cloud; what a [`Front`] does with calls, it does before they are
//! forwarded. It changes no call and no answer, and forwards one after the other: moto fails if two
//! threads use its objects at once ("mutated during iteration").

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::request::Parts;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::Config;
use crate::clock::Time;
use crate::front::{Front, Terms};
use crate::log::Outcome;
use crate::server::{Accepted, Backend, Soon};
use crate::state::Moment;
use crate::wire::Answer;

/// A proxy that runs. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    front: Front,
}

#[derive(Debug)]
struct Upstream {
    address: SocketAddr,
    /// Held while a call is made.
    busy: Mutex<()>,
}

// === impl Proxy ===

impl Proxy {
    /// Starts a proxy for the cloud at this address. It takes the signatures of a default
    /// [`Config`]; it forwards them, and the cloud may take any.
    pub async fn start(upstream: SocketAddr, region: &str) -> io::Result<Self> {
        let config = Config::default();
        let terms = Terms {
            listen: config.listen,
            region: region.to_owned(),
            time: Time::Scaled(1.0),
            throttle: None,
            latency: Duration::ZERO,
            credentials: config.credentials,
            log: config.log,
        };
        let upstream = Upstream {
            address: upstream,
            busy: Mutex::new(()),
        };
        let front = Front::start(terms, Arc::new(upstream)).await?;
        Ok(Self { front })
    }
}

impl Deref for Proxy {
    type Target = Front;

    fn deref(&self) -> &Front {
        &self.front
    }
}

// === impl Upstream ===

impl Backend for Upstream {
    fn answer<'a>(&'a self, call: Accepted<'a>, _now: Moment) -> Soon<'a> {
        Box::pin(async move {
            let _busy = self.busy.lock().await;
            let answer = post(self.address, call.head.clone(), call.body.clone()).await?;
            let outcome = match answer.status {
                200..300 => Outcome::Done,
                _ => Outcome::Refused(text(&answer.body, "Code").unwrap_or_default().to_owned()),
            };
            Ok((outcome, answer))
        })
    }
}

/// Sends one request on a connection of its own.
pub(crate) async fn post(to: SocketAddr, head: Parts, body: Bytes) -> io::Result<Answer> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    // It ends with this function, whatever happens.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::from_parts(head, Full::new(body));
    let response = sender.send_request(request).await;
    let response = response.map_err(io::Error::other)?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await;
    let body = body.map_err(io::Error::other)?.to_bytes();
    Ok(Answer {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// The text of the first element of this name.
pub(crate) fn text<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.trim())
}
