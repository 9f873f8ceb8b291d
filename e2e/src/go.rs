//! Builds programs of Go modules, and reports what Go does meanwhile: on a cold cache that
//! takes minutes.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};

use crate::binaries::on_path;
use crate::progress::Progress;

const NO_GO: &str =
    "go is missing, which builds Kubernetes and Helm: install Go 1.26 or newer and have it in PATH";

/// Compiled without debug information, which the linker would remove anyway: saves a fifth of
/// the work.
const NO_DWARF: &str = "-gcflags=all=-dwarf=false";
/// The compilers are many and short-lived; less garbage collection saves a tenth of the work
/// and takes some hundred megabytes.
const GARBAGE: (&str, &str) = ("GOGC", "400");
/// The most lines of a failed build that are kept and shown: the last ones.
const MOST_LINES: usize = 200;

/// A program to build with Go.
#[derive(Debug)]
pub(crate) struct GoProgram {
    package: &'static str,
    into: PathBuf,
}

/// What a build has reported so far. With `-v`, Go prints the path of each package that it
/// begins to compile.
#[derive(Debug, Default)]
struct Report {
    packages: usize,
    last: String,
    errors: VecDeque<String>,
}

/// Builds programs of one Go module in one run, so that one is linked while another is
/// compiled. Built without C, unless a flag sets a tag that needs it (`-tags seccomp`).
pub(crate) fn go_build(
    source: &Path,
    programs: &[GoProgram],
    flags: &[&str],
    progress: Progress,
) -> Result<()> {
    let Some(folder) = programs.first().and_then(|program| program.into.parent()) else {
        return Ok(());
    };
    // In the folder of the result, because a rename does not cross file systems.
    let new = tempfile::Builder::new().prefix("new-").tempdir_in(folder)?;
    let c = if flags.contains(&"seccomp") { "1" } else { "0" };
    let mut command = Command::new("go");
    command
        .args(["build", "-v", "-trimpath", NO_DWARF])
        .args(flags)
        .arg("-o")
        .arg(new.path().join(""))
        .args(programs.iter().map(|program| program.package))
        .current_dir(source)
        .env("CGO_ENABLED", c)
        .env(GARBAGE.0, GARBAGE.1);
    let left = || {
        let missing = programs
            .iter()
            .filter(|program| !new.path().join(program.built_as()).exists());
        let names: Vec<_> = missing.map(GoProgram::name).collect();
        let (left, all) = (names.len(), programs.len());
        format!("{left} of {all} programs left: {}", names.join(", "))
    };
    let packages: Vec<_> = programs.iter().map(|program| program.package).collect();
    let what = format!("go build {}", packages.join(" "));
    run_go(command, &what, left, progress)?;
    for program in programs {
        std::fs::rename(new.path().join(program.built_as()), &program.into)
            .with_context(|| format!("go build left no program {}", program.built_as()))?;
        progress.say(format!("built {}", program.name()));
    }
    Ok(())
}

/// Runs a command of Go that compiles. While it runs, prints what it compiles and what is
/// `left`.
pub fn run_go(
    mut command: Command,
    what: &str,
    left: impl Fn() -> String + Sync,
    progress: Progress,
) -> Result<()> {
    if !on_path("go") {
        bail!(NO_GO);
    }
    let mut go = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("go does not start")?;
    let said = go.stderr.take();
    let report = Mutex::new(Report::default());
    let doing = || format!("{}{}", left(), locked(&report));
    let status = progress.while_working(doing, || {
        read(said, &report);
        go.wait()
    })?;
    if !status.success() {
        bail!("{what} failed:\n{}", locked(&report).errors());
    }
    Ok(())
}

/// Reads everything that Go prints, until it ends.
fn read(said: Option<impl Read>, report: &Mutex<Report>) {
    for line in said
        .into_iter()
        .flat_map(|it| BufReader::new(it).split(b'\n'))
    {
        let Ok(line) = line else { return };
        locked(report).note(String::from_utf8_lossy(&line).trim_end());
    }
}

fn locked(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl GoProgram ===

impl GoProgram {
    /// `into` appears only when it is complete.
    pub(crate) fn new(package: &'static str, into: PathBuf) -> Self {
        Self { package, into }
    }

    pub(crate) fn is_built(&self) -> bool {
        self.into.exists()
    }

    /// The name that users know.
    fn name(&self) -> String {
        let name = self.into.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The name that `go build -o FOLDER/` gives a program: the last element of the package's
    /// path that is not a major version. (`.` is the module's own program and gets the module's
    /// name.)
    fn built_as(&self) -> &str {
        if self.package == "." {
            let name = self.into.file_name().and_then(|name| name.to_str());
            return name.unwrap_or_default();
        }
        let version = |name: &str| {
            let number = name.strip_prefix('v').unwrap_or_default();
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        };
        let mut elements = self.package.rsplit('/');
        elements.find(|name| !version(name)).unwrap_or(self.package)
    }
}

// === impl Report ===

impl Report {
    fn note(&mut self, line: &str) {
        if line.starts_with("go: downloading ") {
            line.clone_into(&mut self.last);
        } else if !line.is_empty() && !line.contains(char::is_whitespace) {
            // Every message contains a space; the path of a package does not.
            self.packages += 1;
            line.clone_into(&mut self.last);
        } else {
            self.errors.push_back(line.to_owned());
            if self.errors.len() > MOST_LINES {
                self.errors.pop_front();
            }
        }
    }

    fn errors(&self) -> String {
        let lines: Vec<&str> = self.errors.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { packages, last, .. } = self;
        if last.starts_with("go: ") {
            write!(f, "; {last}")
        } else if *packages > 0 {
            write!(f, "; {packages} packages compiled, now {last}")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_under_the_names_that_go_uses() {
        let of = |package| GoProgram::new(package, PathBuf::new());
        assert_eq!(of("go.etcd.io/etcd/server/v3").built_as(), "server");
        assert_eq!(of("helm.sh/helm/v4/cmd/helm").built_as(), "helm");
        assert_eq!(of("./pause").built_as(), "pause");
        assert_eq!(of("example.com/vet").built_as(), "vet");
        assert_eq!(GoProgram::new(".", "bin/kind".into()).built_as(), "kind");
    }

    #[test]
    fn a_build_reports_packages_and_keeps_errors() {
        let report = Mutex::new(Report::default());
        assert_eq!(locked(&report).to_string(), "");
        read(Some(&b"go: downloading k8s.io/api v0.36.3\n"[..]), &report);
        assert_eq!(
            locked(&report).to_string(),
            "; go: downloading k8s.io/api v0.36.3"
        );
        let said =
            "unsafe\nk8s.io/api/core/v1\n# example.com/broken\n./main.go:3:2: undefined: x\n";
        read(Some(said.as_bytes()), &report);
        assert_eq!(
            locked(&report).to_string(),
            "; 2 packages compiled, now k8s.io/api/core/v1"
        );
        assert_eq!(
            locked(&report).errors(),
            "# example.com/broken\n./main.go:3:2: undefined: x"
        );
        read(Some("an error\n".repeat(1000).as_bytes()), &report);
        assert_eq!(locked(&report).errors.len(), MOST_LINES);
    }

    #[test]
    fn a_build_that_fails_says_why() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("go.mod"), "module example.com/broken\n").unwrap();
        std::fs::write(
            folder.path().join("main.go"),
            "package main\n\nfunc main() { missing() }\n",
        )
        .unwrap();
        let program = GoProgram::new(".", folder.path().join("broken"));
        let built = go_build(folder.path(), &[program], &[], Progress::new(false));
        let error = built.unwrap_err().to_string();
        assert!(error.starts_with("go build . failed:"), "{error}");
        assert!(error.contains("undefined: missing"), "{error}");
    }

    /// A file in this folder ends the build. The printing function has no other way to it.
    static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

    /// Lets the build go on when it has said that only `slow` is left, twice.
    fn listen(line: &str) {
        let mut said = SAID.lock().unwrap();
        said.push(line.to_owned());
        let last = said.iter().filter(|it| it.contains("1 of 2 programs left"));
        if last.count() == 2 {
            let folder = FOLDER.lock().unwrap();
            std::fs::write(folder.as_ref().unwrap().join("go-on"), "").unwrap();
        }
    }

    /// The real compiler, as `lab build` runs it, on a module with a package that takes as long
    /// as this test wants.
    #[test]
    fn a_build_says_what_is_built_and_what_is_left() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("go.mod", "module example.com/small\n");
        write("quick/main.go", "package main\n\nfunc main() {}\n");
        // Nothing of the build cache has this number.
        let unique = std::process::id();
        write(
            "long/long.go",
            &format!("package long\n\nconst Number = {unique}\n"),
        );
        write(
            "slow/main.go",
            "package main\n\nimport \"example.com/small/long\"\n\nfunc main() { println(long.Number) }\n",
        );
        // Go calls it with each tool and the tool's arguments; it gives up after a minute.
        write(
            "tool",
            &format!(
                "#!/bin/sh\ncase \"$TOOLEXEC_IMPORTPATH $*\" in *small/long*-p*) n=0; while [ ! -e {}/go-on ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done;; esac\nexec \"$@\"\n",
                folder.path().display()
            ),
        );
        let tool = folder.path().join("tool");
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o700)).unwrap();
        *FOLDER.lock().unwrap() = Some(folder.path().to_owned());
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let programs = ["quick", "slow"];
        let programs = [
            GoProgram::new("./quick", bin.join(programs[0])),
            GoProgram::new("./slow", bin.join(programs[1])),
        ];
        let flags = ["-toolexec", tool.to_str().unwrap()];
        let progress = Progress::every(std::time::Duration::from_millis(20), listen);
        go_build(folder.path(), &programs, &flags, progress).unwrap();
        assert!(programs.iter().all(GoProgram::is_built));
        let said = SAID.lock().unwrap();
        let waits = "1 of 2 programs left: slow; ";
        let waits: Vec<_> = said.iter().filter(|it| it.contains(waits)).collect();
        assert!(waits.len() >= 2, "{said:?}");
        let now = " packages compiled, now example.com/small/";
        assert!(waits.iter().all(|it| it.contains(now)), "{said:?}");
        assert!(said.last().unwrap().ends_with("built slow"), "{said:?}");
    }
}
