//! Connections: how many there are at once, and how long each may take.
//!
//! Owns the loop that accepts them. Any client that reaches the port can open connections, and each takes a descriptor that the database's
//! reader and the replays need. So there is a highest number; where it is reached, the oldest connection without a complete request is
//! closed for each new one. A polite client is answered in any case, as its request comes at once and takes a moment.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::IntCounter;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// How many there are at once, where the limit on descriptors leaves room for them.
const CONNECTIONS_MAX: usize = 64;
/// And where it leaves little room.
const CONNECTIONS_MIN: usize = 4;
/// Descriptors that connections never take: of the program itself, the database and the store, and for each replay.
const DESCRIPTORS_RESERVED: u64 = 128;
const DESCRIPTORS_PER_REPLAY: u64 = 48;
/// How long one may be without a complete request: from its beginning, or after an answer.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long one lasts in all. A client that goes on asking makes a new one.
const LIFE_MAX: Duration = Duration::from_secs(600);
/// How long the last answer may take then.
const LAST_ANSWER_MAX: Duration = Duration::from_secs(10);
/// The request line and the headers of a request, in bytes and in number. What is served takes no body.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// The pause after the system refused a connection: it has no descriptor left, and says so again at once.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// How many connections there may be with so many descriptors and so many replays at once.
#[must_use]
pub(crate) fn connections_max(descriptors: u64, replays: usize) -> usize {
    let reserved = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_REPLAY * replays as u64;
    let room = usize::try_from(descriptors.saturating_sub(reserved)).unwrap_or(usize::MAX);
    room.clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

/// A connection that is served.
struct Open {
    task: AbortHandle,
    /// Whether a request is being answered.
    is_answering: Arc<AtomicBool>,
}

/// Those that are open, oldest first.
struct Connections {
    open: Vec<Open>,
    max: usize,
    /// Counts those that were closed to make room.
    dropped: IntCounter,
}

impl Connections {
    /// Takes another one in, and closes one for it if there are too many: the oldest of those that wait for a request, or else the oldest.
    /// A new one is never refused: it may be the only one that is polite.
    fn add(&mut self, stream: TcpStream, routes: &Router) {
        self.open.retain(|open| !open.task.is_finished());
        if self.open.len() >= self.max {
            self.dropped.inc();
            let waits = |open: &Open| !open.is_answering.load(Ordering::Relaxed);
            let oldest = self.open.iter().position(waits).unwrap_or(0);
            self.open.remove(oldest).task.abort();
        }
        let is_answering = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(serve_one(stream, routes.clone(), Arc::clone(&is_answering))).abort_handle();
        self.open.push(Open { task, is_answering });
    }
}

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, routes: Router, max: usize, dropped: IntCounter) {
    let mut connections = Connections { open: Vec::new(), max, dropped };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.add(stream, &routes),
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::debug!("a connection was refused: {error}");
                sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

/// Whether a connection ended before it was taken, which says nothing of the next.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused)
}

async fn serve_one(stream: TcpStream, routes: Router, is_answering: Arc<AtomicBool>) {
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        is_answering.store(true, Ordering::Relaxed);
        let (answer, is_answering) = (routes.call(request), Arc::clone(&is_answering));
        async move {
            let answer = answer.await;
            is_answering.store(false, Ordering::Relaxed);
            answer.map_err(|error: Infallible| match error {})
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE_MAX)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // What goes wrong with a connection concerns its client alone.
    if let Err(_too_old) = timeout(LIFE_MAX, connection.as_mut()).await {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER_MAX, connection).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_to_the_replays() {
        for (descriptors, replays, max) in [
            (1_024, 1, 64),
            (1_024, 16, 64),
            (256, 1, 64),
            (256, 2, 32),
            (64, 1, 4),
            (1_024, 256, 4),
            (u64::MAX, 1, 64),
        ] {
            assert_eq!(connections_max(descriptors, replays), max, "{descriptors} descriptors, {replays} replays");
        }
    }
}
