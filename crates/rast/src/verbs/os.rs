//! `rast os`: rastOS's own image.

use std::{
    env,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use os::image::{self, Image, Places};

use crate::{
    exit::{Exit, Failure},
    manifest, output,
};

/// Build rastOS's own image
#[derive(Args)]
pub struct Os {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    Build(Build),
}

/// Build the image that machines boot, as an ordinary user
#[derive(Args)]
struct Build {
    /// The document that describes the image; without one, the default image
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where the image goes
    #[arg(short, long, value_name = "DIR", default_value = "image")]
    output: PathBuf,
    /// Where Debian's packages are kept [default: rastos in the user's cache]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

impl Os {
    /// Runs the verb.
    pub fn run(self) -> Result<()> {
        match self.act {
            Act::Build(build) => build.run(),
        }
    }
}

impl Build {
    fn run(self) -> Result<()> {
        let image = self.file.as_deref().map_or_else(|| Ok(Image::default()), read)?;
        let program = env::current_exe().context("find this program")?;
        let cache = match self.cache {
            Some(cache) => cache,
            None => cache().context("no home to keep packages in: give --cache DIR")?,
        };
        let places = Places { initrd: program.with_file_name("rast-initrd"), program, cache, output: self.output };
        for (file, size) in image::build(&image, &places)? {
            let mebibytes = size as f64 / f64::from(1 << 20);
            output::line(format!("{mebibytes:8.1} MiB  {}", file.display()))?;
        }
        Ok(())
    }
}

/// The one document of a file, which must be an image; every fault with its line.
fn read(file: &Path) -> Result<Image> {
    let objects = manifest::read_all(&[file.to_owned()])?;
    let [object] = objects.as_slice() else {
        bail!(Failure::new(Exit::Invalid, format!("{}: must hold one document, an Image", file.display())))
    };
    Image::read(&object.value).map_err(|faults| {
        let mut places = String::new();
        for fault in faults.0 {
            let _infallible = write!(places, "{}", object.place(&fault.path.to_string(), &fault.message));
        }
        Failure::new(Exit::Invalid, places.trim_end().to_owned()).into()
    })
}

fn cache() -> Option<PathBuf> {
    let below = |variable: &str, rest: &str| Some(PathBuf::from(env::var_os(variable)?).join(rest));
    below("XDG_CACHE_HOME", "rastos/packages").or_else(|| below("HOME", ".cache/rastos/packages"))
}
