//! `make image`: writes Ballast's container image without a container engine, and checks that
//! other builds give the same image.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use ballast_e2e::image::Image;
use ballast_e2e::installation::programs;
use ballast_e2e::kind::containerfile;
use ballast_e2e::release::Release;
use clap::Parser;

/// Builds Ballast's static programs and writes its container image as an archive for
/// `docker load`, `ctr images import` and `kind load image-archive`.
#[derive(Debug, Parser)]
#[command(name = "image", version)]
struct Cli {
    /// The source.
    #[arg(long, default_value = ".")]
    source: PathBuf,
    /// The folder for the archive and its bill of materials [default: target/image].
    #[arg(long)]
    into: Option<PathBuf>,
    /// Write the contents of the image into a folder instead, for the Containerfile.
    #[arg(long)]
    files: Option<PathBuf>,
    /// Write an image for tests: with the programs of the debug build beside this program, and the
    /// libraries that they load. Compiles nothing.
    #[arg(long, conflicts_with = "files")]
    debug: bool,
    /// Build two clones in different folders from scratch and check that both give the same image.
    #[arg(long, conflicts_with_all = ["into", "files", "debug"])]
    twice: bool,
    /// Build the Containerfile of a clone with Docker, this machine's or the one of the kind tests,
    /// and check that its image has the same contents.
    #[arg(long, conflicts_with_all = ["into", "files", "debug", "twice"])]
    engine: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    if cli.twice {
        return twice(&cli.source);
    }
    if cli.engine {
        return engine(&cli.source);
    }
    let folder = cli
        .into
        .clone()
        .unwrap_or_else(|| cli.source.join("target/image"));
    if cli.debug {
        return write(&Release::for_tests(&cli.source, programs()?), &folder);
    }
    let release = Release::build(&cli.source)?;
    if let Some(folder) = &cli.files {
        return release.image().unpack(folder);
    }
    write(&release.image(), &folder)?;
    std::fs::write(folder.join("ballast.cdx.json"), &release.sbom)?;
    Ok(())
}

fn write(image: &Image, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let archive = folder.join("ballast.tar");
    let digest = image.write(&archive)?;
    println!("{} {digest}", image.reference);
    println!("{} ({})", archive.display(), size(&archive)?);
    Ok(())
}

/// Takes minutes: everything is compiled twice.
fn twice(source: &Path) -> Result<()> {
    let mut digests = vec![];
    for name in ["a", "another-folder"] {
        let dir = tempfile::tempdir()?;
        let clone = dir.path().join(name);
        make_clone(source, &clone)?;
        let release = Release::build(&clone)?;
        let digest = release.image().write(&dir.path().join("image.tar"))?;
        println!("{name}: {digest}");
        digests.push(digest);
    }
    ensure!(digests[0] == digests[1], "two builds of one commit differ");
    Ok(())
}

/// Also takes minutes: the engine compiles everything, and the tool for the bill of materials.
fn engine(source: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let clone = dir.path().join("ballast");
    make_clone(source, &clone)?;
    let own = Release::build(&clone)?.image();
    let checked = containerfile::check(&clone, &own);
    tokio::runtime::Runtime::new()?.block_on(checked)?;
    println!("the Containerfile's image holds what `make image` writes");
    Ok(())
}

/// The time of the last commit: uncommitted changes are not in the image.
fn make_clone(source: &Path, into: &Path) -> Result<()> {
    let cloned = std::process::Command::new("git")
        .args(["clone", "--quiet"])
        .arg(source)
        .arg(into)
        .status()?;
    ensure!(cloned.success(), "git clone failed");
    Ok(())
}

fn size(file: &Path) -> Result<String> {
    let bytes = std::fs::metadata(file)?.len();
    Ok(format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10))
}
