//! Answers HTTP requests.

use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::page::{INDEX, status};
use crate::metrics::Metrics;
use crate::metrics::encode::Servers;
use crate::topology::{NodeId, Topology};

/// Connections at once.
const MAX_CONNECTIONS: usize = 64;

/// The longest that one connection may stay.
const MAX_STAY: Duration = Duration::from_secs(300);

/// How long the head of a request may take.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// How long that may take.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);

/// For those whom `http_from` does not hold.
const FORBIDDEN: &[u8] = b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is served.
pub struct HttpState {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The nodes.
    pub topology: Box<dyn Fn() -> Arc<Topology>>,
    /// How many connections the nodes have.
    pub servers: Box<dyn Fn(NodeId) -> Servers>,
    /// The time since the process started.
    pub now: Box<dyn Fn() -> Duration>,
    /// No new clients are taken.
    pub draining: Arc<AtomicBool>,
    /// Whether anything is answered to that address.
    pub from: Box<dyn Fn(IpAddr) -> bool>,
}

/// Serves until the runtime ends, on the local runtime of this thread.
pub async fn serve(listener: TcpListener, state: HttpState) {
    let state = Rc::new(state);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let turned_away = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if !(state.from)(peer.ip()) {
            // Whoever is not answered takes no place of those who are.
            if let Ok(place) = turned_away.clone().try_acquire_owned() {
                tokio::task::spawn_local(async move {
                    let _ = timeout(REFUSAL_LIMIT, refuse(stream)).await;
                    drop(place);
                });
            }
            continue;
        }
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let state = state.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| {
                let answer = answer(&request, &state);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            // A client that breaks off has its own reasons.
            let _ = timeout(MAX_STAY, connection).await;
            drop(place);
        });
    }
}

/// Answers that nothing is answered, once something was asked.
async fn refuse(mut stream: TcpStream) -> std::io::Result<()> {
    let mut asked = [0; 1024];
    let _asked = stream.read(&mut asked).await?;
    stream.write_all(FORBIDDEN).await
}

fn answer(request: &Request<Incoming>, state: &HttpState) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is answered here\n".to_owned());
    }
    let topology = (state.topology)();
    let (now, draining) = ((state.now)(), state.draining.load(Ordering::Relaxed));
    match request.uri().path() {
        "/metrics" => match state.metrics.encode(&topology, &*state.servers, now) {
            Ok(text) => response(StatusCode::OK, metrics_kind(request), text),
            Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
        },
        "/health" => response(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/ready" => {
            let ready = topology.primary.is_some() && !draining;
            let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            response(code, JSON, status(&topology, now, draining).to_string())
        }
        "/api/status" => response(StatusCode::OK, JSON, status(&topology, now, draining).to_string()),
        "/" => response(StatusCode::OK, "text/html; charset=utf-8", INDEX.to_owned()),
        _ => response(
            StatusCode::NOT_FOUND,
            TEXT,
            "there is /metrics, /health, /ready, /api/status and /\n".to_owned(),
        ),
    }
}

/// The same text is right for both, but an old scraper refuses a name that it does not know.
fn metrics_kind(request: &Request<Incoming>) -> &'static str {
    let accepted = request.headers().get_all(ACCEPT);
    let open = |value: &HeaderValue| value.to_str().is_ok_and(|v| v.contains("application/openmetrics-text"));
    if accepted.iter().any(open) { OPEN_METRICS } else { PROMETHEUS }
}

fn response(code: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
