//! `make chart`: generates files from the chart, and the parts of the chart that are generated.

use anyhow::Result;
use ballast_e2e::{Helm, Progress, chart};
use clap::{Parser, Subcommand};

/// Work on charts/ballast.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build Helm and the other programs without writing files.
    Build,
    /// Write the chart's CRDs and README and deploy/rbac.yaml.
    Write,
    /// Run helm with these arguments.
    #[command(trailing_var_arg = true)]
    Helm {
        /// Arguments for helm.
        #[arg(allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let helm = Helm::ensure(Progress::new(true))?;
    match cli.command {
        Command::Build => {}
        Command::Write => {
            for path in chart::write(&helm)? {
                println!("wrote {path}");
            }
        }
        Command::Helm { arguments } => {
            let status = helm.command("helm").args(arguments).status()?;
            std::process::exit(status.code().unwrap_or(1));
        }
    }
    Ok(())
}
