//! A Docker host, the machine's or our own, and the operations of tests and users on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::Mutex;

use super::cluster::{self, Cluster, ClusterOptions};
use super::docker_host::{self, DockerHost};
use super::programs::Programs;
use super::{machine, node, root};
use crate::control::Output;
use crate::progress::Progress;
use crate::state::{self, Found, Place};

/// The default time-out of a command.
const EXEC_TIME: Duration = Duration::from_mins(2);

/// This file marks the folder of a host that is the machine's Docker.
const MACHINE: &str = "machine";

/// `auto`, `machine` or `build`.
const CHOICE: &str = "BALLAST_KIND";

/// A Docker host with kind. A host that was built here ends with this value, unless it is
/// detached. On the machine's Docker, only the clusters that it created end.
#[derive(Debug)]
pub struct KindHost {
    place: Place,
    docker: Docker,
    programs: Programs,
    /// kind cannot create two clusters at once.
    creating: Mutex<()>,
    progress: Progress,
}

#[derive(Debug)]
enum Docker {
    /// The machine's Docker, which may also run other containers.
    Machine,
    /// A host that was started here.
    Built(DockerHost),
}

impl KindHost {
    /// Uses the machine's Docker if it works and can get kind's node image; otherwise builds
    /// and starts a host. Prints which. `BALLAST_KIND=machine` or `build` overrides this.
    pub async fn start(name: &str) -> Result<Self> {
        let progress = Progress::new(true);
        let refusal = refusal().await?;
        let place = Place::docker_host(name)?;
        let (programs, docker) = if let Some(why) = refusal {
            progress.say(format!(
                "{why}: a Docker host of our own, without an uplink"
            ));
            if is_machine(&place)? {
                end_machine(&place, None).await?;
            }
            let (programs, images) = built(progress).await?;
            let own = DockerHost::start(name, &programs, Some(&images)).await?;
            progress.say(format!("the Docker host {name} is up"));
            (programs, Docker::Built(own))
        } else {
            progress.say("kind uses this machine's Docker");
            let programs = kind_alone(progress).await?;
            let marked = place.clone();
            tokio::task::spawn_blocking(move || mark(&marked)).await??;
            (programs, Docker::Machine)
        };
        Ok(Self::of(place, docker, programs, progress))
    }

    fn of(place: Place, docker: Docker, programs: Programs, progress: Progress) -> Self {
        Self {
            place,
            docker,
            programs,
            creating: Mutex::new(()),
            progress,
        }
    }

    /// The running host of that name that was started before, if any.
    pub async fn attach(name: &str) -> Result<Option<Self>> {
        let place = Place::docker_host(name)?;
        let progress = Progress::new(true);
        let (docker, programs) = if let Some(own) = DockerHost::attach(name)? {
            (Docker::Built(own), built_programs(progress).await?)
        } else if is_machine(&place)? && machine::refuses().await.is_none() {
            (Docker::Machine, kind_alone(progress).await?)
        } else {
            return Ok(None);
        };
        Ok(Some(Self::of(place, docker, programs, progress)))
    }

    /// The same; an error if there is none.
    pub async fn running(name: &str) -> Result<Self> {
        Self::attach(name).await?.with_context(|| {
            format!("there is no Docker host {name}; start it with `kind host start {name}`")
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.place.name()
    }

    /// Whether it was built and started here, so it is not the machine's own.
    pub fn is_built(&self) -> bool {
        matches!(self.docker, Docker::Built(_))
    }

    /// Its state folder.
    pub fn dir(&self) -> PathBuf {
        self.place.dir()
    }

    /// The node image that kind uses here.
    pub(super) fn image(&self) -> Result<String> {
        match self.docker {
            Docker::Machine => Ok(machine::NODE_IMAGE.to_owned()),
            Docker::Built(_) => node::reference(),
        }
    }

    pub(super) fn programs(&self) -> &Programs {
        &self.programs
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    pub(super) async fn one_at_a_time(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.creating.lock().await
    }

    /// The environment of a command on the host: PATH with kind, kubectl and helm, and the
    /// kubeconfig that `kind create cluster` writes to.
    pub fn env(&self) -> Result<Vec<(String, String)>> {
        let config = self.dir().join("kubeconfig");
        let helm = |of: &str| self.dir().join("helm").join(of).display().to_string();
        Ok(vec![
            ("HELM_CACHE_HOME".to_owned(), helm("cache")),
            ("HELM_CONFIG_HOME".to_owned(), helm("config")),
            ("HELM_DATA_HOME".to_owned(), helm("data")),
            path(&self.programs),
            ("BALLAST_KIND_IMAGE".to_owned(), self.image()?),
            ("KUBECONFIG".to_owned(), config.display().to_string()),
        ])
    }

    /// The arguments for `exec` that run a command on the host.
    pub fn command(&self, argv: &[String]) -> Result<Vec<String>> {
        let mut line = vec![];
        if let Docker::Built(own) = &self.docker {
            line.push("nsenter".to_owned());
            line.extend(own.enter()?);
            line.push("--".to_owned());
        }
        line.push("env".to_owned());
        // After entering another mount namespace, the working directory is its root.
        line.push(format!("--chdir={}", std::env::current_dir()?.display()));
        line.extend(
            self.env()?
                .into_iter()
                .map(|(key, value)| format!("{key}={value}")),
        );
        line.extend_from_slice(argv);
        Ok(line)
    }

    /// Runs a command on the Docker host, where nodes are reachable, and returns its output.
    pub async fn exec<A: AsRef<str>>(&self, argv: impl IntoIterator<Item = A>) -> Result<Output> {
        self.exec_for(argv, "", EXEC_TIME).await
    }

    /// Like [`KindHost::exec`], with standard input and a time-out.
    pub async fn exec_for<A: AsRef<str>>(
        &self,
        argv: impl IntoIterator<Item = A>,
        stdin: &str,
        time: Duration,
    ) -> Result<Output> {
        let env = self.env()?;
        let argv: Vec<A> = argv.into_iter().collect();
        let argv: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
        match &self.docker {
            Docker::Machine => machine::run(&argv, &env, stdin, time).await,
            Docker::Built(own) => {
                let env: Vec<String> = env
                    .into_iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                let line: Vec<&str> = std::iter::once("env")
                    .chain(env.iter().map(String::as_str))
                    .chain(argv)
                    .collect();
                own.exec(&line, stdin, time).await
            }
        }
    }

    /// Runs the Docker client and returns its output.
    pub async fn docker(&self, arguments: &[&str]) -> Result<String> {
        self.exec(std::iter::once(&"docker").chain(arguments))
            .await?
            .ok()
    }

    /// Creates a cluster with `kind create cluster` and waits until its nodes are Ready.
    pub async fn cluster(&self, name: &str, options: ClusterOptions) -> Result<Cluster<'_>> {
        cluster::create(self, name, &options).await
    }

    /// A cluster that was created before.
    pub async fn find_cluster(&self, name: &str) -> Result<Cluster<'_>> {
        cluster::find(self, name).await
    }

    /// Lets the host continue after this process.
    pub async fn detach(mut self) -> Result<()> {
        if let Docker::Built(own) = &mut self.docker {
            own.detach().await?;
        }
        Ok(())
    }

    /// Stops it with everything on it; on the machine's Docker, deletes only the clusters
    /// created here.
    pub async fn stop(self) -> Result<()> {
        match self.docker {
            Docker::Built(own) => own.stop().await,
            Docker::Machine => end_machine(&self.place, Some(self.programs)).await,
        }
    }
}

/// Builds everything that a Docker host on this machine needs, without starting one.
pub async fn build() -> Result<()> {
    let progress = Progress::new(true);
    match refusal().await? {
        Some(_) => {
            // One process that mostly waits for the network: it runs beside the compilers.
            let packages = tokio::task::spawn_blocking(move || root::fetch(progress));
            let packages = async { packages.await? };
            tokio::try_join!(packages, built_programs(progress))?;
            built(progress).await.map(drop)
        }
        None => kind_alone(progress).await.map(drop),
    }
}

/// Why the machine's Docker is not used; `None` if it is.
async fn refusal() -> Result<Option<String>> {
    let choice = std::env::var(CHOICE).unwrap_or_else(|_| "auto".to_owned());
    Ok(match choice.as_str() {
        "build" => Some(format!("{CHOICE}=build")),
        "auto" => machine::refuses().await,
        "machine" => match machine::refuses().await {
            None => None,
            Some(why) => bail!("{CHOICE}=machine, but there is {why}"),
        },
        other => bail!("{CHOICE} is auto, machine or build, not {other:?}"),
    })
}

/// The programs, and the folder with the node image.
async fn built(progress: Progress) -> Result<(Programs, PathBuf)> {
    let programs = built_programs(progress).await?;
    let images = node::ensure(&programs, progress).await?;
    Ok((programs, images))
}

/// All Docker hosts and their states.
pub fn list() -> Result<Vec<(String, &'static str)>> {
    let mut found = vec![];
    for place in state::docker_hosts()? {
        let state = match place.find()? {
            Found::Running(_) => "up",
            _ if is_machine(&place)? => "the machine's own",
            _ => "dead",
        };
        found.push((place.name().to_owned(), state));
    }
    Ok(found)
}

/// Stops a Docker host of our own, dead or alive; on the machine's Docker, deletes the clusters
/// that were created under this name. Returns whether there was anything.
pub async fn remove(name: &str) -> Result<bool> {
    let place = Place::docker_host(name)?;
    if is_machine(&place)? {
        return end_machine(&place, None).await.map(|()| true);
    }
    tokio::task::spawn_blocking(move || docker_host::remove(&place)).await?
}

/// Whether the folder belongs to a host that is the machine's Docker.
fn is_machine(place: &Place) -> Result<bool> {
    let built = matches!(place.find()?, Found::Running(_));
    Ok(!built && place.dir().join(MACHINE).exists())
}

/// Marks the folder as that of the machine's Docker.
fn mark(place: &Place) -> Result<()> {
    let _lock = place.lock()?;
    if let Found::Running(_) = place.find()? {
        bail!(docker_host::runs_already(place));
    }
    std::fs::create_dir_all(place.dir())?;
    std::fs::write(place.dir().join(MACHINE), "")?;
    Ok(())
}

/// The machine's Docker has nothing of ours but clusters, which kind deletes.
async fn end_machine(place: &Place, programs: Option<Programs>) -> Result<()> {
    let locked = place.clone();
    let _lock = tokio::task::spawn_blocking(move || locked.lock()).await??;
    let clusters = cluster::made_here(&place.dir())?;
    if !clusters.is_empty() {
        let programs = match programs {
            Some(programs) => programs,
            None => kind_alone(Progress::new(true)).await?,
        };
        let env = [path(&programs)];
        for name in clusters {
            let config = text(&cluster::kubeconfig(&place.dir(), &name));
            let argv = cluster::delete_argv(&name, &config);
            machine::run(&argv, &env, "", EXEC_TIME).await?.ok()?;
        }
    }
    std::fs::remove_dir_all(place.dir())?;
    Ok(())
}

async fn built_programs(progress: Progress) -> Result<Programs> {
    tokio::task::spawn_blocking(move || Programs::ensure(progress)).await?
}

async fn kind_alone(progress: Progress) -> Result<Programs> {
    tokio::task::spawn_blocking(move || Programs::kind_alone(progress)).await?
}

/// The search path of commands: kind and related programs first.
fn path(programs: &Programs) -> (String, String) {
    let path = std::env::var("PATH").unwrap_or_default();
    let bin = programs.bin();
    let path = format!(
        "{}:{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin",
        bin.display()
    );
    ("PATH".to_owned(), path)
}

/// A path as a string, for arguments of programs.
pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
