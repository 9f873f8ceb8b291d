//! The images that every node has: pause, agnhost, and the name server.
//!
//! They carry their upstream names, so that manifests written for a real cluster run as they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use sha2::{Digest, Sha256};

use crate::binaries::Binaries;
use crate::image::{Entry, Image, hex};
use crate::progress::Progress;

/// The image of a pod's own container.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10.1";
/// The image of test pods. Has `sh`, `curl`, `nc` and `wget` too, where Debian's
/// busybox-static, curl, netcat-openbsd and wget are installed.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
/// The image of the name server.
pub const COREDNS: &str = "registry.k8s.io/coredns/coredns:v1.14.6";

/// Raised when what is in the images changes.
const RECIPE: u32 = 4;

/// Where Debian has a busybox that needs no libraries.
const BUSYBOX: &str = "/bin/busybox";

/// Called by the upstream suite in test pods: where Debian has them, and their place in the
/// image. They have no static packages, so their libraries go along. Busybox's own `nc` has
/// not the flags that the suite uses, its static `wget` falls over a bare address, and its
/// `sh` prefers both to those of the path.
const PROGRAMS: [(&str, &str); 4] = [
    ("/bin/dash", "bin/sh"),
    ("/usr/bin/curl", "usr/bin/curl"),
    ("/bin/nc.openbsd", "bin/nc"),
    ("/usr/bin/wget", "bin/wget"),
];

/// What test pods call by name.
const APPLETS: [&str; 28] = [
    "sh", "ash", "cat", "cp", "cut", "date", "echo", "env", "false", "find", "grep", "head",
    "hostname", "id", "ip", "ls", "mkdir", "nc", "nslookup", "ping", "printf", "ps", "rm", "seq",
    "sleep", "tail", "true", "wget",
];

/// An image of a program of this machine with the libraries that it needs: for tests of what is
/// around the program. They run what was just built, without a release build.
pub fn with_libraries(reference: &str, program: &Path, user: &str) -> Image {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let mut entries = library_entries(program);
    entries.push(Entry::Program(
        name.clone().into_owned(),
        program.to_owned(),
    ));
    Image {
        reference: reference.to_owned(),
        entrypoint: vec![format!("/{name}")],
        user: user.to_owned(),
        entries,
        ..Image::default()
    }
}

/// The libraries that a program of this machine loads, at the places where it looks for them.
pub(crate) fn library_entries(program: &Path) -> Vec<Entry> {
    libraries(&program.to_string_lossy())
        .into_iter()
        .map(|library| {
            let place = library.to_string_lossy().trim_start_matches('/').to_owned();
            Entry::Program(place, library)
        })
        .collect()
}

/// The archives of a cache, by the name of the image they hold.
pub(crate) fn archives(cache: &Binaries) -> Result<Vec<(&'static str, PathBuf)>> {
    let dir = cache.dir().join("images").join(variant()?);
    Ok([PAUSE, COREDNS, AGNHOST]
        .map(|name| (name, dir.join(format!("{}.tar", short(name)))))
        .to_vec())
}

/// Writes the archives that are missing.
pub(crate) fn ensure(cache: &Binaries, progress: Progress) -> Result<()> {
    for (name, path) in archives(cache)? {
        if path.exists() {
            continue;
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        image(cache, name).write(&path)?;
        progress.say(format!("wrote the image {name}"));
    }
    Ok(())
}

/// `agnhost` of `registry/path/agnhost:1`.
pub(crate) fn short(reference: &str) -> &str {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    last.split(':').next().unwrap_or(last)
}

/// The images hold programs of the machine too; another version of those is another folder.
fn variant() -> Result<String> {
    let mut hash = Sha256::new();
    for (path, _) in tools() {
        let file = std::fs::metadata(&path)?;
        hash.update(format!(
            "{} {} {:?}\n",
            path.display(),
            file.len(),
            file.modified()?
        ));
    }
    Ok(format!("{RECIPE}-{}", &hex(&hash.finalize())[..8]))
}

/// Files of the machine that agnhost's image gets, with their places there, libraries
/// included, as far as they are there.
fn tools() -> Vec<(PathBuf, String)> {
    let mut files = std::collections::BTreeMap::new();
    if Path::new("/usr/share/doc/busybox-static").exists() && Path::new(BUSYBOX).exists() {
        files.insert(PathBuf::from(BUSYBOX), "bin/busybox".to_owned());
    }
    for (program, place) in PROGRAMS {
        if Path::new(program).exists() {
            files.insert(program.into(), place.to_owned());
            files.extend(libraries(program).into_iter().map(|library| {
                let place = library.to_string_lossy().trim_start_matches('/').to_owned();
                (library, place)
            }));
        }
    }
    files.into_iter().collect()
}

/// The libraries of a program, by the paths under which it looks for them.
fn libraries(program: &str) -> Vec<PathBuf> {
    let Ok(output) = Command::new("ldd").arg(program).output() else {
        return vec![];
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = |line: &str| {
        line.split_ascii_whitespace()
            .find(|word| word.starts_with('/'))
            .map(PathBuf::from)
    };
    let mut found: Vec<PathBuf> = text.lines().filter_map(path).collect();
    found.sort();
    found
}

fn image(cache: &Binaries, reference: &str) -> Image {
    let program = short(reference);
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    let mut entries = vec![
        Entry::Folder("bin", 0o755),
        Entry::Folder("etc", 0o755),
        Entry::Folder("root", 0o700),
        Entry::Folder("tmp", 0o1777),
        Entry::Folder("usr", 0o755),
        Entry::Folder("usr/bin", 0o755),
        Entry::Folder("var", 0o755),
        Entry::Text("etc/passwd", passwd.to_owned()),
        Entry::Text("etc/group", "root:x:0:\nnogroup:x:65534:\n".to_owned()),
        Entry::Text("etc/nsswitch.conf", "hosts: files dns\n".to_owned()),
    ];
    let tools = if program == "agnhost" {
        tools()
    } else {
        vec![]
    };
    if tools.iter().any(|(_, place)| place == "bin/busybox") {
        let links = APPLETS.map(|name| format!("bin/{name}"));
        let real = |link: &String| tools.iter().any(|(_, place)| place == link);
        let links = links.into_iter().filter(|link| !real(link));
        entries.extend(links.map(|link| Entry::Link(link, "/bin/busybox".to_owned())));
    }
    for (tool, place) in tools {
        entries.push(Entry::Program(place, tool));
    }
    entries.push(Entry::Program(program.to_owned(), cache.program(program)));
    Image {
        reference: reference.to_owned(),
        entrypoint: vec![format!("/{program}")],
        user: if program == "pause" {
            "65535:65535".to_owned()
        } else {
            String::new()
        },
        entries,
        ..Image::default()
    }
}
