//! `make demo`, `make demo-l2`, `make demo-orphans` and `make demo-kind` as programs: they succeed, and they fail if a
//! step fails. How fast the first three are, is a test in `long/demo.rs`.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

fn demo(name: &str, more: &[(&str, &str)]) -> Result<Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_demo"))
        .env("BALLAST_LAB", name)
        .env_remove("KEEP")
        .envs(more.iter().copied())
        .output()?)
}

#[test]
fn the_demo_ends_with_an_empty_cloud() -> Result<()> {
    ends_with_an_empty_cloud("t-demo")
}

/// The whole demo in a lab of this name.
pub(crate) fn ends_with_an_empty_cloud(name: &str) -> Result<()> {
    let output = demo(name, &[])?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}{errors}");
    for step in [
        "<pending>",
        "EnsuredLoadBalancer",
        "the cloud is empty",
        "Done in",
    ] {
        ensure!(said.contains(step), "no word of \"{step}\":\n{said}");
    }
    Ok(())
}

#[test]
fn the_demo_on_bare_metal_moves_an_address_once() -> Result<()> {
    moves_an_address_once("t-demo-l2").map(drop)
}

/// The whole demo in a lab of this name. Returns the outage after the link was cut, in milliseconds.
pub(crate) fn moves_an_address_once(name: &str) -> Result<u64> {
    let output = Command::new(env!("CARGO_BIN_EXE_demo_l2"))
        .env("BALLAST_LAB", name)
        .env_remove("KEEP")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}{errors}");
    let line = |words: &str| {
        let mut lines = said.lines().map(str::trim);
        let found = lines.find(|line| line.contains(words));
        found.with_context(|| format!("no word of \"{words}\":\n{said}"))
    };
    let holder = line(" answers ARP requests for ")?.split(' ').next();
    let outage = line("The client was not answered for ")?;
    let outage = outage.split(' ').nth(6).context("no number")?;
    let outage: u64 = outage.parse().with_context(|| said.clone().into_owned())?;
    // A link that is cut shows, and a busy machine is slow.
    ensure!((50..30_000).contains(&outage), "{outage} ms");
    let now = line("Now node")?.split(' ').nth(1);
    ensure!(
        now.is_some() && now != holder,
        "{holder:?} before, {now:?} now"
    );
    let last = line(" still answers for ")?;
    ensure!(last.contains(now.unwrap_or_default()), "{last}");
    let back = line(" connections failed. ")?;
    ensure!(back.starts_with("0 of "), "{back}");
    line("Done in")?;
    println!("{said}");
    Ok(outage)
}

#[test]
fn the_demo_of_the_trap_ends_with_nothing_to_pay() -> Result<()> {
    ends_with_nothing_to_pay("t-demo-orphans")
}

/// The whole demo in a lab of this name.
pub(crate) fn ends_with_nothing_to_pay(name: &str) -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_demo_orphans"))
        .env("BALLAST_LAB", name)
        .env_remove("KEEP")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}{errors}");
    let bills: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("On AWS "))
        .collect();
    let full = "On AWS 20 load balancers would cost $0.55 an hour, $401.50 a month";
    let none = "On AWS 0 load balancers would cost $0.00 an hour, $0.00 a month";
    ensure!(bills == [full, none, full, full, none], "{said}");
    for words in ["--force-live", "the meter has moved from", "Done in"] {
        ensure!(said.contains(words), "no word of \"{words}\":\n{said}");
    }
    let found = (1..=20).all(|n| said.contains(&format!("default/shop-{n}")));
    ensure!(found, "{said}");
    println!("{said}");
    Ok(())
}

#[test]
fn the_demo_on_kind_ends_with_nothing_left() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_demo_kind"))
        .env_remove("KEEP")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}{errors}");
    for step in [
        "<pending>",
        "both servers answer",
        "Programmed",
        "Nothing is left",
        "Done in",
    ] {
        ensure!(said.contains(step), "no word of \"{step}\":\n{said}");
    }
    println!("{said}");
    Ok(())
}

#[test]
fn a_step_that_fails_is_named_and_is_the_status() -> Result<()> {
    let output = demo("t-demo-fails", &[("BALLAST_BIN", "/bin/false")])?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1),
        "{:?}\n{errors}",
        output.status
    );
    ensure!(errors.contains("step \"Install Ballast"), "{errors}");
    Ok(())
}
