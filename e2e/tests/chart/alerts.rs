//! Every alert fires for the series that should trigger it, once and without interruption, and
//! for no others. Prometheus' own rule engine evaluates them (`e2e/helm/alerts`).

#[path = "alerts/announcers.rs"]
mod announcers;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use ballast_e2e::documents;
use serde::Deserialize;
use serde_json::{Value, json};

use self::announcers::{of_announcers, of_failovers};
use super::helm;

/// Two replicas, as the rules select them.
const A: &str = "namespace=\"ballast-system\", pod=\"ballast-controller-a\"";
const B: &str = "namespace=\"ballast-system\", pod=\"ballast-controller-b\"";
/// Another release.
const OTHER: &str = "namespace=\"shop\", pod=\"ballast-controller-a\"";

/// A series in the notation of `promtool test rules`.
type Series = (String, String);

/// A test of an alert.
struct Case {
    alert: &'static str,
    /// Seconds between two samples, and between two evaluations.
    interval: u32,
    /// Minutes.
    until: u32,
    fires: Vec<Series>,
    quiet: Vec<Series>,
}

/// The result of a case.
#[derive(Debug, Deserialize)]
struct Told {
    evaluations: u32,
    firing: BTreeMap<String, u32>,
    flaps: BTreeMap<String, u32>,
}

fn series(name: &str, labels: &[&str], values: impl Into<String>) -> Series {
    (format!("{name}{{{}}}", labels.join(", ")), values.into())
}

/// A counter of `count` samples that increases by one at each of these.
fn counter(count: u32, grows: impl Fn(u32) -> bool) -> String {
    let mut value = 0;
    let samples = (0..count).map(|at| {
        value += u32::from(grows(at));
        value.to_string()
    });
    samples.collect::<Vec<_>>().join(" ")
}

fn cases() -> Vec<Case> {
    let all = [
        of_leaders(),
        of_services(),
        of_failures(),
        of_addresses(),
        of_announcers(),
        of_failovers(),
    ];
    all.into_iter().flatten().collect()
}

fn leader(labels: &str, values: &str) -> Series {
    series("ballast_leader", &[labels], values)
}

fn of_leaders() -> Vec<Case> {
    vec![
        Case {
            alert: "BallastNoLeader",
            interval: 30,
            until: 10,
            fires: vec![leader(A, "0x40"), leader(B, "0x40"), leader(OTHER, "1x40")],
            // A leader stops, and a minute later there is another.
            quiet: vec![leader(A, "1x9 0x30"), leader(B, "0x11 1x30")],
        },
        Case {
            alert: "BallastSeveralLeaders",
            interval: 30,
            until: 10,
            fires: vec![leader(A, "1x40"), leader(B, "1x40")],
            // Scraped at the moment of the change; another release has its own leader.
            quiet: vec![
                leader(A, "1x10 0x30"),
                leader(B, "0x9 1x30"),
                leader(OTHER, "1x40"),
            ],
        },
    ]
}

fn of_services() -> Vec<Case> {
    let pending = |values: &str| {
        let labels = [A, "class=\"local\"", "reason=\"CloudError\""];
        vec![series("ballast_services_pending", &labels, values)]
    };
    let oldest = |values: &str| vec![series("ballast_queue_oldest_age_seconds", &[A], values)];
    // Of this many Services, those that got their address within a minute.
    let waited = |fast: &str, all: &str| {
        let bucket = |up_to: &str, values: &str| {
            let bound = format!("le=\"{up_to}\"");
            let name = "ballast_time_to_address_seconds_bucket";
            series(name, &[A, &bound], values)
        };
        vec![bucket("60", fast), bucket("120", all), bucket("+Inf", all)]
    };
    let contested = |values: &str| {
        let labels = [A, "kind=\"service\""];
        vec![series("ballast_contested_objects", &labels, values)]
    };
    vec![
        Case {
            alert: "BallastContested",
            interval: 60,
            until: 60,
            fires: contested("2x60"),
            // Somebody tried something for some minutes.
            quiet: contested("0x9 1x4 0x47"),
        },
        Case {
            alert: "BallastServicesPending",
            interval: 60,
            until: 60,
            fires: pending("3x60"),
            quiet: pending("3x10 0x50"),
        },
        Case {
            alert: "BallastOrphans",
            interval: 300,
            until: 120,
            fires: vec![series("ballast_orphans", &[A, "class=\"local\""], "2x120")],
            // A survey finds one that is being deleted; the next one does not.
            quiet: vec![series(
                "ballast_orphans",
                &[A, "class=\"local\""],
                "0x9 1x6 0x100",
            )],
        },
        Case {
            alert: "BallastIdentityShared",
            interval: 60,
            until: 60,
            fires: vec![series(
                "ballast_identity_shared",
                &[A, "class=\"local\""],
                "1x60",
            )],
            quiet: vec![series(
                "ballast_identity_shared",
                &[A, "class=\"local\""],
                "0x60",
            )],
        },
        Case {
            alert: "BallastQueueStuck",
            interval: 60,
            until: 30,
            fires: oldest("130+60x30"),
            quiet: oldest("110x30"),
        },
        Case {
            alert: "BallastSlow",
            interval: 60,
            until: 60,
            fires: waited("0+9x60", "0+10x60"),
            quiet: waited("0+99x60", "0+100x60"),
        },
    ]
}

fn of_failures() -> Vec<Case> {
    let class = "class=\"local\"";
    let errors = |values: String| {
        let labels = [A, class, "reason=\"CloudError\""];
        vec![series("ballast_provider_errors_total", &labels, values)]
    };
    let retargets = |values: String| {
        let labels = [A, class, "outcome=\"failed\""];
        vec![series("ballast_retargets_total", &labels, values)]
    };
    let watch = |values: String| {
        let labels = [A, "kind=\"Service\""];
        vec![series("ballast_watch_errors_total", &labels, values)]
    };
    let missed = |values: &str| {
        let labels = [A, "kind=\"services\""];
        vec![series("ballast_watch_missed_total", &labels, values)]
    };
    let compared = |values: &str| {
        let labels = [A, "kind=\"services\""];
        vec![series(
            "ballast_watch_compared_timestamp_seconds",
            &labels,
            values,
        )]
    };
    let last = |at: u32| {
        if (60..100).contains(&at) {
            60
        } else {
            at - at % 6
        }
    };
    let comparisons: Vec<String> = (0..130).map(|at| (30 * last(at)).to_string()).collect();
    let comparisons = comparisons.join(" ");
    vec![
        Case {
            alert: "BallastWatchMissed",
            interval: 30,
            until: 60,
            // One comparison finds three objects.
            fires: missed("0x20 3x100"),
            // The counter exists from the start, and a replica that starts again begins at 0.
            quiet: missed("3x20 0x100"),
        },
        Case {
            alert: "BallastWatchUnchecked",
            interval: 30,
            until: 60,
            // The last comparison was at the start.
            fires: compared("0x130"),
            // A comparison every three minutes, and none for 20 minutes.
            quiet: compared(&comparisons),
        },
        Case {
            alert: "BallastProviderErrors",
            interval: 30,
            until: 360,
            // One Service that fails for six hours: a try every five and a half minutes.
            fires: errors(counter(721, |at| at % 11 == 5)),
            // Ten minutes of failures, and more hours later.
            quiet: errors(counter(721, |at| at % 400 >= 20 && at % 400 < 40)),
        },
        Case {
            alert: "BallastTargetsStale",
            interval: 30,
            until: 120,
            fires: retargets(counter(241, |at| at % 11 == 5)),
            quiet: retargets(counter(241, |at| at == 40)),
        },
        Case {
            alert: "BallastApiUnreachable",
            interval: 30,
            until: 60,
            fires: watch(counter(121, |_| true)),
            // The API server restarts twice.
            quiet: watch(counter(121, |at| at % 60 < 4)),
        },
    ]
}

fn of_addresses() -> Vec<Case> {
    let targets = |labels: &str, values: &str| series("ballast_targets", &[labels], values);
    let silent = |labels: &str, values: &str| {
        let class = "class=\"lan\", announced=\"false\"";
        series("ballast_service_addresses", &[labels, class], values)
    };
    let available = |labels: &str, values: &str| {
        let pool = "pool=\"main\", family=\"IPv4\", state=\"available\"";
        series("ballast_pool_addresses", &[labels, pool], values)
    };
    vec![
        Case {
            alert: "BallastNoTargets",
            interval: 60,
            until: 30,
            fires: vec![leader(A, "1x30"), targets(A, "0x30")],
            // A replica that does not lead does not check.
            quiet: vec![
                leader(A, "1x30"),
                leader(B, "0x30"),
                targets(A, "3x30"),
                targets(B, "0x30"),
            ],
        },
        Case {
            alert: "BallastAddressNotAnnounced",
            interval: 60,
            until: 30,
            fires: vec![leader(A, "1x30"), silent(A, "2x30")],
            // Announcers restart, and a former leader is scraped for the last time.
            quiet: vec![
                leader(A, "1x30"),
                leader(B, "0x30"),
                silent(A, "0x9 2x3 0x17"),
                silent(B, "2x30"),
            ],
        },
        Case {
            alert: "BallastPoolExhausted",
            interval: 60,
            until: 30,
            fires: vec![leader(A, "1x30"), available(A, "0x30")],
            quiet: vec![
                leader(A, "1x30"),
                leader(B, "0x30"),
                available(A, "1x30"),
                available(B, "0x30"),
            ],
        },
    ]
}

/// There is a case for each alert, and an alert for each case.
fn every_alert_is_tried(rules: &Value, cases: &[Case]) -> Result<()> {
    let groups = rules["spec"]["groups"].as_array().into_iter().flatten();
    let all = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
    let all: BTreeSet<&str> = all.filter_map(|it| it["alert"].as_str()).collect();
    let tried: BTreeSet<&str> = cases.iter().map(|case| case.alert).collect();
    let difference: Vec<_> = all.symmetric_difference(&tried).collect();
    ensure!(
        difference.is_empty(),
        "not tried, or no alert: {difference:?}"
    );
    Ok(())
}

/// The chart can add a rule; as far as this test is concerned, it is an alert without a case.
#[test]
fn an_alert_that_is_not_tried_is_found() -> Result<()> {
    let flags = [
        "--set",
        "metrics.rules.enabled=true",
        "--set",
        "metrics.rules.extra[0].alert=BallastNew,metrics.rules.extra[0].expr=vector(1)",
    ];
    let rendered = helm()?.template("ballast", "ballast-system", &flags)?;
    let mut objects = documents(&rendered)?.into_iter();
    let rules = objects.find(|object| object["kind"] == "PrometheusRule");
    let rules = rules.context("no rules")?;
    let told = every_alert_is_tried(&rules, &cases())
        .unwrap_err()
        .to_string();
    ensure!(told == "not tried, or no alert: [\"BallastNew\"]", "{told}");
    let mut fewer = cases();
    let lost = fewer.pop().context("no cases")?.alert;
    let told = every_alert_is_tried(&rules, &fewer)
        .unwrap_err()
        .to_string();
    ensure!(told.contains(lost), "{told}");
    Ok(())
}

#[test]
fn every_alert_fires_when_it_should_and_not_otherwise() -> Result<()> {
    let helm = helm()?;
    let flags = ["--set", "metrics.rules.enabled=true"];
    let rendered = helm.template("ballast", "ballast-system", &flags)?;
    let rules = documents(&rendered)?
        .into_iter()
        .find(|object| object["kind"] == "PrometheusRule")
        .context("no rules")?;
    let cases = cases();
    every_alert_is_tried(&rules, &cases)?;

    let asked: Vec<Value> = cases
        .iter()
        .flat_map(|case| [&case.fires, &case.quiet].map(|series| case.asked(series)))
        .collect();
    let mut program = Command::new(helm.program("alerts"));
    // JSON is YAML.
    let request = json!({"rules": rules["spec"].to_string(), "cases": asked});
    let told: Value = serde_json::from_str(&piped(&mut program, &request.to_string())?)?;
    let told: Vec<Told> = serde_json::from_value(told["cases"].clone())?;
    ensure!(told.len() == 2 * cases.len());
    for (case, told) in cases.iter().zip(told.chunks(2)) {
        let (alert, [loud, quiet]) = (case.alert, told) else {
            continue;
        };
        let times = loud.firing.get(alert).copied().unwrap_or_default();
        println!("{alert}: {times} of {} evaluations", loud.evaluations);
        ensure!(times > 0, "{alert} does not fire: {loud:?}");
        ensure!(loud.flaps[alert] == 1, "{alert} flaps: {loud:?}");
        ensure!(
            !quiet.firing.contains_key(alert),
            "{alert} fires: {quiet:?}"
        );
    }
    Ok(())
}

/// Runs a program with this standard input, and returns its output.
fn piped(program: &mut Command, input: &str) -> Result<String> {
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("the rule engine does not run")?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

// === impl Case ===

impl Case {
    fn asked(&self, series: &[Series]) -> Value {
        let series: Vec<Value> = series
            .iter()
            .map(|(series, values)| json!({"series": series, "values": values}))
            .collect();
        json!({
            "interval": format!("{}s", self.interval),
            "until": format!("{}m", self.until),
            "series": series,
        })
    }
}
