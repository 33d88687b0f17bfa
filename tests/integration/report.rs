//! The page that tells a divergence, in a real headless browser.
//!
//! Goal: show that the page needs nothing and complains of nothing, says what `explain` says, and lets nothing of what a vat
//! put into its strings become markup. Method: evidence of real spans whose record was changed, by code that tries to break out; the page
//! opened in Debian's headless Chromium, whose DevTools protocol tells every request and every complaint. That the check
//! can fail is shown with pages that fail it. The pictures are in `target/report`.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::browser::{Browser, Seen};
use crate::lab::{lab, real_worker};
use crate::run::{spanwatch, text};
use crate::synthetic::change_item;

/// Keeps evidence of a span of a real vat in which a delivery's record was changed; gives the folder.
pub fn evidence(dir: &Path, vat: &str, start: i64, position: i64, change: impl FnOnce(&str) -> String) -> PathBuf {
    let lab = lab("everything");
    let file = dir.join("changed.sqlite");
    fs::copy(&lab.file, &file).expect("copy");
    let vat = lab.vat(vat);
    change_item(&file, vat, position, true, change);
    let kept = dir.join("evidence");
    let worker = real_worker();
    let span = format!("{start}..{}", start + 1);
    let arguments = ["verify", text(&file), "--vat", vat, "--span", &span, "--evidence", text(&kept)];
    let run = spanwatch(&[&arguments[..], &["--worker", text(&worker)]].concat());
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    fs::remove_file(file).expect("remove");
    let mut folders = fs::read_dir(&kept).expect("evidence").filter_map(|entry| {
        let entry = entry.expect("an entry");
        entry.file_type().expect("a type").is_dir().then(|| entry.path())
    });
    folders.next().expect("a folder")
}

/// One computron more than the delivery cost.
pub fn cost_more(item: &str) -> String {
    let (before, cost) = item.rsplit_once("\"computrons\":").expect("a cost");
    let cost: u64 = cost.trim_end_matches('}').parse().expect("a number");
    format!("{before}\"computrons\":{}}}}}}}", cost + 1)
}

/// What a vat could put into a string to get out of it, or to hide.
const HOSTILE: &str =
    "</code></script><script>document.title='out'</script><img src=x onerror=alert(1)>\"'&amp;\u{202e}\u{7}\u{0}";

/// The first write to the vatstore of a delivery has a hostile value in the record, and a read stands before it that was
/// never made. The delivery itself keeps its text.
fn hostile(item: &str) -> String {
    let mut parsed: Value = serde_json::from_str(item).expect("json");
    let syscalls = parsed["sc"].as_array_mut().expect("syscalls");
    let at = syscalls.iter().position(|syscall| syscall["s"][0] == "vatstoreSet").expect("a write");
    let value = syscalls[at]["s"][2].as_str().expect("a value").to_owned();
    syscalls[at]["s"][2] = json!(format!("{value}{HOSTILE}"));
    syscalls.push(json!({"s": ["vatstoreGet", format!("vc.9.|schemata{HOSTILE}")], "r": ["ok", null]}));
    let delivery = &item[..item.find(",\"sc\":").expect("syscalls")];
    format!(r#"{delivery},"sc":{},"r":{}}}"#, parsed["sc"], parsed["r"])
}

fn url(page: &Path) -> String {
    format!("file://{}", text(page))
}

fn clean(page: &Path) -> Seen {
    Seen { requests: vec![url(page)], complaints: Vec::new() }
}

#[test]
fn the_page_in_a_browser() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = evidence(dir.path(), "collections", 5, 8, hostile);
    let page = dir.path().join("report.html");
    let made = spanwatch(&["report", text(&folder), "-o", text(&page)]);
    assert_eq!((made.code, made.out.trim()), (0, text(&page)), "{}", made.err);
    let source = fs::read_to_string(&page).expect("the page");
    for no in ["<script", "<img", "http://", "https://", "url("] {
        assert!(!source.contains(no), "{no} in the page");
    }

    let explained = spanwatch(&["explain", text(&folder), "--format", "json"]);
    let account = &explained.lines("account")[0];
    let mut browser = Browser::start();
    let mut grounds = Vec::new();
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/report");
    for (name, is_dark) in [("light", false), ("dark", true)] {
        assert_eq!(browser.open(&url(&page), is_dark), clean(&page));
        let shown = browser.evaluate("document.body.innerText");
        let shown = shown.as_str().expect("text");
        for finding in account["findings"].as_array().expect("findings") {
            let position = finding["position"].to_string();
            let kind = finding["kind"].as_str().expect("a kind");
            let row = format!(
                "[...document.querySelectorAll('#what ~ div tbody tr')].some(row => row.cells[0].innerText === '{position}' \
                 && row.cells[1].innerText.startsWith('{kind}'))"
            );
            assert_eq!(browser.evaluate(&row), json!(true), "{finding} in {shown}");
        }
        let first = &account["first"];
        let lead = format!("at position {}, {}", first["position"], first["kind"].as_str().expect("a kind"));
        for says in [&lead[..], "deterministic", "load-snapshot", "U+202E", "</script><script>", "changed", "missing"] {
            assert!(shown.contains(says), "{says} in {shown}");
        }
        for delivery in account["deliveries"].as_array().expect("deliveries") {
            let heading = format!("Delivery {}, {}", delivery["position"], delivery["kind"].as_str().expect("a kind"));
            assert!(shown.contains(&heading), "{heading} in {shown}");
        }
        for cause in account["causes"].as_array().expect("causes") {
            assert!(shown.contains(cause["name"].as_str().expect("a name")), "{cause} in {shown}");
        }
        assert_eq!(browser.evaluate("document.querySelectorAll('script, img, iframe, object').length"), 0);
        // As many marks as there are deliveries, recorded and replayed, and those of the legend.
        let costs = account["costs"].as_array().expect("costs").len();
        assert_eq!(browser.evaluate("document.querySelectorAll('svg circle.recorded').length"), costs + 1);
        assert_eq!(browser.evaluate("document.querySelectorAll('svg path.replayed').length"), costs + 1);
        assert_eq!(browser.evaluate("document.querySelectorAll('table:not(:has(th[scope=col]))').length"), 0);
        let is_wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
        assert_eq!(browser.evaluate(is_wider), false, "the page is not wider than the window");
        assert_eq!(browser.evaluate(TOO_FAINT), json!([]), "{name}: text that can't be read");
        grounds.push(browser.evaluate("getComputedStyle(document.body).backgroundColor"));
        let picture = browser.picture(&pictures.join(format!("{name}.png")));
        assert!(fs::metadata(picture).expect("a picture").len() > 20_000, "a picture of something");
    }
    assert_ne!(grounds[0], grounds[1], "light and dark look different");
    let printed = browser.print();
    assert!(printed.starts_with(b"%PDF-") && printed.len() > 20_000, "{} bytes", printed.len());
}

/// Texts with a contrast below 4.5 to what is behind them, the least that WCAG 2 asks for.
const TOO_FAINT: &str = r"(() => {
  const parse = color => color.match(/[\d.]+/g).map(Number);
  const luminance = color => {
    const [red, green, blue] = parse(color).map(part => {
      const one = part / 255;
      return one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      const [, , , alpha = 1] = parse(color);
      if (alpha === 1) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const faint = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || element.closest('title, desc')) continue;
    const style = getComputedStyle(element);
    const color = element.closest('svg') ? style.fill : style.color;
    const [one, other] = [luminance(color), luminance(behind(element))].sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) faint.add(`${texts.currentNode.data}: ${color} on ${behind(element)}`);
  }
  return [...faint];
})()";

#[test]
fn a_page_that_is_not_whole_fails_the_check() {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let image = format!("<img src=http://{}/x.png>", listener.local_addr().expect("an address"));
    let page = dir.path().join("page.html");
    let mut browser = Browser::start();
    let mut open = |content: &str| {
        fs::write(&page, format!("<!doctype html><meta charset=utf-8><link rel=icon href=data:,>{content}"))
            .expect("write");
        browser.open(&url(&page), false)
    };
    assert_eq!(open("<p>nothing"), clean(&page));
    assert!(open("<script>console.error('x')</script>").complaints[0].contains('x'));
    assert!(open("<script>throw Error('thrown')</script>").complaints[0].contains("thrown"));

    // Somebody at the other end: the request is told because it is made.
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
        let mut begin = [0; 10];
        stream.read_exact(&mut begin).expect("a request");
        begin
    });
    assert!(open(&image).requests.iter().any(|request| request.ends_with("/x.png")));
    assert_eq!(&asked.join().expect("a request"), b"GET /x.png");

    // The policy of our own pages lets nothing out, and the attempt is told.
    let policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">";
    let stopped = open(&format!("{policy}{image}<p style='color:red'>"));
    assert!(stopped.complaints.iter().any(|complaint| complaint.contains("x.png")), "{stopped:?}");
}

#[test]
fn a_report_needs_evidence_and_a_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let nothing = spanwatch(&["report", text(dir.path())]);
    assert_eq!(nothing.code, 1);
    assert!(nothing.err.contains("has no manifest.json"), "{}", nothing.err);
}
