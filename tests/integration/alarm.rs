//! The whole of it with real parts: a real kernel that records something else than its worker did, the daemon beside it, and a
//! real Prometheus that raises the alarm.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::beside::{Setup, http_get};
use crate::lab::{LiveKernel, real_worker};
use crate::run::{spanwatch, text};
use crate::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(120);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program of Debian's package.
fn tool(name: &str) -> PathBuf {
    let path = root().join("target/tools").join(name);
    assert!(path.exists(), "{} is missing: scripts/prometheus.sh gets it, and `make test` runs that", path.display());
    path
}

fn promtool(arguments: &[&str], input: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("input");
    fs::write(&file, input).expect("write");
    let out = Command::new(tool("promtool"))
        .args(arguments)
        .current_dir(root().join("config"))
        .stdin(fs::File::open(&file).expect("open"))
        .output()
        .expect("promtool");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    // Advice about a metric's name comes with exit code 3, and is heeded too.
    assert!(out.status.success(), "promtool {arguments:?}: {said}");
}

struct Prometheus {
    child: Child,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Prometheus {
    fn scraping(target: SocketAddr) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let config = data.path().join("prometheus.yml");
        let rules = root().join("config/alerts.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\n\
                 scrape_configs: [{{job_name: spanwatch, static_configs: [{{targets: ['{target}']}}]}}]\n",
                text(&rules)
            ),
        )
        .expect("write");
        // Free now, and nobody else asks for one in the moment until it is taken.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let child = Command::new(tool("prometheus"))
            .arg(format!("--config.file={}", text(&config)))
            .arg(format!("--storage.tsdb.path={}", text(&data.path().join("data"))))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus");
        Self { child, address, _data: data }
    }

    /// What its API answers, once it does.
    fn ask(&self, path: &str) -> Option<Value> {
        let (status, body) = http_get(self.address, path)?;
        let answer: Value = serde_json::from_str(&body).ok()?;
        assert!(status == 200 || answer["status"] != "error", "{path}: {body}");
        (status == 200).then(|| answer["data"].clone())
    }

    fn query(&self, expression: &str) -> Vec<Value> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.ask(&format!("/api/v1/query?query={encoded}"));
        data.and_then(|data| data["result"].as_array().cloned()).unwrap_or_default()
    }

    fn firing(&self) -> Vec<String> {
        let alerts = self.ask("/api/v1/alerts").and_then(|data| data["alerts"].as_array().cloned()).unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned())).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(what: &str, holds: impl FnMut() -> bool) {
    wait_until(PATIENCE, holds, || format!("never came: {what}"));
}

/// All queries of the dashboard, each with its panel's title.
fn dashboard_queries() -> Vec<(String, String)> {
    let dashboard = fs::read_to_string(root().join("grafana/spanwatch.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("json");
    let mut queries = Vec::new();
    let mut panels: Vec<&Value> = dashboard["panels"].as_array().expect("panels").iter().collect();
    while let Some(panel) = panels.pop() {
        panels.extend(panel["panels"].as_array().into_iter().flatten());
        for target in panel["targets"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().expect("a title").to_owned();
            queries.push((title, target["expr"].as_str().expect("a query").to_owned()));
        }
    }
    queries
}

/// What Grafana puts in the place of its variables.
fn as_grafana_would(query: &str) -> String {
    let mut query = query.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "1m"),
        ("$__interval", "15s"),
        ("$__range", "5m"),
        ("${instance:regex}", ".*"),
        ("${instance}", ".*"),
        ("$instance", ".*"),
    ] {
        query = query.replace(variable, value);
    }
    query
}

#[test]
fn the_rules_hold_what_they_promise() {
    promtool(&["check", "rules", "alerts.yml"], "");
    promtool(&["test", "rules", "alerts_test.yml"], "");
    promtool(&["check", "config", "prometheus.yml"], "");
}

/// Each alert has its section in the operator's manual.
#[test]
fn every_alert_has_its_page() {
    let rules = fs::read_to_string(root().join("config/alerts.yml")).expect("the rules");
    let manual = fs::read_to_string(root().join("docs/operations.md")).expect("the manual");
    let anchors: Vec<String> = manual
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|title| title.trim_start_matches('#').trim().to_lowercase())
        .map(|title| title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>())
        .map(|title| title.replace(' ', "-"))
        .collect();
    let alerts = rules.lines().filter(|line| line.trim_start().starts_with("- alert:")).count();
    let pages: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.split_once("operations.md#"))
        .map(|(_, anchor)| anchor.trim_matches('"').trim())
        .collect();
    assert!(alerts >= 5 && pages.len() == alerts, "{alerts} alerts, {pages:?}");
    for page in pages {
        assert!(anchors.iter().any(|anchor| anchor == page), "no section {page} among {anchors:?}");
    }
}

#[test]
fn a_record_that_is_wrong_raises_the_alarm() {
    let out = tempfile::tempdir().expect("a directory");
    let state = tempfile::tempdir().expect("a directory");
    let mut kernel = LiveKernel::start_with(out.path(), &["--live", "400", "--keep", "items"]);
    let daemon = Setup::new(state.path(), &out.path().join("agoric"), &real_worker()).start();
    let prometheus = Prometheus::scraping(daemon.address());
    kernel.keep_reading();
    daemon.wait_for("a span that is verified", |daemon| daemon.spans("verified") > 0);
    promtool(&["check", "metrics"], &daemon.get("/metrics").1);
    wait_for("a scrape", || !prometheus.query("spanwatch_spans_total > 0").is_empty());
    assert!(!prometheus.firing().iter().any(|alert| alert == "SpanwatchDivergence"));

    kernel.signal("USR1");
    kernel.wait_for("lied about");
    daemon.wait_for("the divergence", |daemon| daemon.spans("diverged") == 1);
    let row = daemon.verdicts().into_iter().find(|row| row["verdict"] == "diverged").expect("the span");
    assert_eq!(row["kinds"], serde_json::json!(["computrons"]), "{row}");
    let lied_about = format!("{}:{}", row["vat"].as_str().expect("a vat"), row["report"]["findings"][0]["position"]);
    kernel.wait_for(&format!("lied about {lied_about}"));
    wait_for("the alarm", || prometheus.firing().iter().any(|alert| alert == "SpanwatchDivergence"));

    // Every panel of the dashboard has something to show.
    let queries = dashboard_queries();
    assert!(queries.len() > 15, "{queries:?}");
    for (panel, query) in queries {
        let query = as_grafana_would(&query);
        wait_for(&format!("data for {panel}: {query}"), || !prometheus.query(&query).is_empty());
    }

    let id = row["id"].as_str().expect("an id");
    let noted = spanwatch(&["ack", id, "--state-dir", text(&daemon.state)]);
    assert_eq!(noted.code, 0, "{}", noted.err);
    wait_for("the end of the alarm", || !prometheus.firing().iter().any(|alert| alert == "SpanwatchDivergence"));
    // What was good stayed good.
    let metrics = daemon.metrics();
    assert_eq!(metrics["spanwatch_spans_total{verdict=\"diverged\"}"], 1.0, "{}", daemon.said());
    assert_eq!(metrics["spanwatch_missed_spans_total"], 0.0, "{}", daemon.said());
    assert_eq!(daemon.stop(), Some(0));
}
