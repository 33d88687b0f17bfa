//! The daemon's web server: metrics for Prometheus, health for supervisors, JSON for programs.
//!
//! `connections` accepts and limits connections. The server only reads, and every answer is made from the store and the
//! shared view in one go. A divergence, damage or a changed row never makes a check of life or readiness fail: finding it
//! is the daemon's work. The answers show how many there are.

mod connections;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::pause::PauseReason;
use super::shared::Shared;
use crate::store::{StoreError, VerdictFilter, VerdictRow, now};
use connections::connections_max;

/// How many spans are listed where no number is asked for, and at most.
const SPANS: u32 = 100;
const SPANS_MAX: u32 = 10_000;
/// The database counts as readable for so many poll intervals after it was read last, and for some seconds at least.
const LOOKS_MISSED_MAX: f64 = 5.0;
const LOOK_AGE_MAX_SECONDS: f64 = 10.0;

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, descriptors: u64) {
    let connections_max = connections_max(descriptors, shared.jobs());
    tracing::debug!(descriptors, connections_max, "connections have their limit");
    let dropped = shared.metrics.http_connections_dropped.clone();
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/api/v1/status", get(status))
        .route("/api/v1/spans", get(spans))
        .route("/api/v1/divergences", get(divergences))
        .route("/api/v1/alarms", get(alarms))
        .with_state(shared);
    connections::serve(listener, routes, connections_max, dropped).await;
}

/// Runs what may wait for a disk where it holds nobody up.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StatusCode> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, StatusCode> {
    let text = aside(move || {
        shared.refresh_gauges();
        shared.metrics.encode()
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

async fn ready(State(shared): State<Arc<Shared>>) -> Result<Response, StatusCode> {
    aside(move || match readiness(&shared) {
        Ok((reasons, body)) => {
            let status = if reasons == 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (status, json_of(&body)).into_response()
        }
        Err(error) => failed(&shared, &error),
    })
    .await
}

/// How many reasons there are not to be ready, and the answer.
fn readiness(shared: &Shared) -> Result<(usize, Value), StoreError> {
    let view = shared.view.get();
    let backlog = shared.store.backlog()?;
    let mut reasons = Vec::new();
    let look_age = view.last_look_at.map(|at| now() - at);
    let age_max = (shared.config.watch.poll_interval.as_secs_f64() * LOOKS_MISSED_MAX).max(LOOK_AGE_MAX_SECONDS);
    if look_age.is_none_or(|age| age > age_max) {
        reasons
            .push(format!("the database is not readable: {}", view.problem.as_deref().unwrap_or(view.state.label())));
    }
    if backlog.live > shared.config.schedule.backlog_max {
        reasons.push(format!("{} spans wait for a verdict", backlog.live));
    }
    reasons.extend(shared.pauses.reasons().into_iter().map(|reason| reason.text().to_owned()));
    let verified: serde_json::Map<String, Value> = shared
        .store
        .last_verified_positions()?
        .into_iter()
        .map(|(vat, name, position)| (vat, json!({ "name": name, "position": position })))
        .collect();
    let left = shared.store.unacknowledged()?;
    let body = json!({
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "backlog": { "live": backlog.live, "history": backlog.history },
        "unacknowledged": {
            "diverged": left.diverged,
            "contradicted": left.contradicted,
            "damaged": left.damaged,
            "changed": left.changed,
        },
        "last_verified": verified,
    });
    Ok((reasons.len(), body))
}

async fn status(State(shared): State<Arc<Shared>>) -> Result<Response, StatusCode> {
    aside(move || {
        let answer = || -> Result<Value, StoreError> {
            let backlog = shared.store.backlog()?;
            let left = shared.store.unacknowledged()?;
            let mut totals = serde_json::Map::new();
            for (name, label, value) in shared.store.totals()? {
                if label.is_empty() {
                    totals.insert(name, json!(value));
                } else if let Some(of) = totals.entry(name).or_insert_with(|| json!({})).as_object_mut() {
                    of.insert(label, json!(value));
                }
            }
            Ok(json!({
                "spanwatch": env!("CARGO_PKG_VERSION"),
                "node": shared.view.get(),
                "worker": &shared.programs[0],
                "sandbox_layers": shared.sandbox_layers(),
                "sandbox_missing": shared.programs[0].protection.missing,
                "paused": shared.pauses.reasons().into_iter().map(PauseReason::label).collect::<Vec<_>>(),
                "running": shared.work.running(),
                "backlog": {
                    "live": backlog.live,
                    "history": backlog.history,
                    "oldest_noticed_at": backlog.oldest_noticed_at,
                },
                "unacknowledged_divergences": left.diverged,
                "unacknowledged_contradictions": left.contradicted,
                "damaged_spans": left.damaged,
                "changed_rows": left.changed,
                "capture_bytes": shared.store.capture_bytes()?,
                "totals": totals,
            }))
        };
        match answer() {
            Ok(body) => json_of(&body),
            Err(error) => failed(&shared, &error),
        }
    })
    .await
}

/// What may be asked of a list.
#[derive(Debug, Deserialize)]
struct Listing {
    vat: Option<String>,
    limit: Option<u32>,
}

async fn spans(State(shared): State<Arc<Shared>>, Query(listing): Query<Listing>) -> Result<Response, StatusCode> {
    list(shared, listing, VerdictFilter::default()).await
}

async fn divergences(
    State(shared): State<Arc<Shared>>,
    Query(listing): Query<Listing>,
) -> Result<Response, StatusCode> {
    list(shared, listing, VerdictFilter { is_diverged: true, ..VerdictFilter::default() }).await
}

async fn alarms(State(shared): State<Arc<Shared>>, Query(listing): Query<Listing>) -> Result<Response, StatusCode> {
    list(shared, listing, VerdictFilter { is_alarm: true, ..VerdictFilter::default() }).await
}

async fn list(shared: Arc<Shared>, listing: Listing, only: VerdictFilter) -> Result<Response, StatusCode> {
    aside(move || {
        let limit = Some(listing.limit.unwrap_or(SPANS).min(SPANS_MAX));
        let mut rows: Vec<VerdictRow> = Vec::new();
        let filter = VerdictFilter { vat: listing.vat, limit, ..only };
        match shared.store.verdicts(&filter, |row| rows.push(row)) {
            Ok(()) => json_of(&rows),
            Err(error) => failed(&shared, &error),
        }
    })
    .await
}

fn failed(shared: &Shared, error: &StoreError) -> Response {
    shared.store_failed(error);
    (StatusCode::INTERNAL_SERVER_ERROR, json_of(&json!({ "error": error.to_string() }))).into_response()
}

/// An answer in JSON. People read it in a terminal, so nothing in it is hidden.
fn json_of(value: &impl Serialize) -> Response {
    let header = [(header::CONTENT_TYPE, "application/json")];
    (header, crate::report::json::line(value)).into_response()
}
