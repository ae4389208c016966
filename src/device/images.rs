//! Kernel images: what `build.rs` embedded, or the files of a folder named by `NARROWGAUGE_IMAGES`.

use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Written by `pack` of `build.rs`; empty where the crate was built without kernels.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/images.bin"));

/// One kernel for one architecture.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Image {
    /// What the simulated card runs.
    pub ptx: Arc<str>,
    /// What ptxas made from this very PTX; `None` where a folder of images has the PTX alone.
    pub cubin: Option<Arc<[u8]>>,
}

/// The image of a kernel for the architecture as nvcc names it, `sm_90a`. A folder of `NARROWGAUGE_IMAGES` with
/// `<entry>.90a.ptx` comes before what is embedded; it is read at every call.
pub(crate) fn find(entry: &str, arch: &str) -> Result<Image> {
    let arch = arch.strip_prefix("sm_").unwrap_or(arch);
    if let Some(folder) = std::env::var_os("NARROWGAUGE_IMAGES") {
        let ptx = PathBuf::from(folder).join(format!("{entry}.{arch}.ptx"));
        if ptx.is_file() {
            return from_files(entry, &ptx);
        }
    }
    embedded().find(entry, arch)
}

/// The entry names of the kernels that this build carries, in order.
pub fn kernels() -> Vec<&'static str> {
    let mut entries: Vec<_> = embedded().images.keys().map(|(entry, _)| *entry).collect();
    entries.sort_unstable();
    entries.dedup();
    entries
}

fn from_files(entry: &str, ptx: &Path) -> Result<Image> {
    let failed = |path: &Path, e: std::io::Error| Error::Image {
        kernel: entry.to_owned(),
        reason: format!("{}: {e}", path.display()),
    };
    let text = std::fs::read_to_string(ptx).map_err(|e| failed(ptx, e))?;
    let cubin = ptx.with_extension("cubin");
    let machine_code = match std::fs::read(&cubin) {
        Ok(bytes) => Some(bytes.into()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(failed(&cubin, e)),
    };
    Ok(Image { ptx: text.into(), cubin: machine_code })
}

fn embedded() -> &'static Embedded {
    static EMBEDDED: OnceLock<Embedded> = OnceLock::new();
    EMBEDDED.get_or_init(|| Embedded::index(PACKED).unwrap_or_default())
}

/// The packed images, by entry and architecture.
#[derive(Default)]
struct Embedded {
    images: HashMap<(&'static str, &'static str), Packed>,
}

struct Packed {
    ptx: &'static [u8],
    cubin: &'static [u8],
    /// The image that it is the difference to.
    like: Option<&'static str>,
    unpacked: OnceLock<Result<Image>>,
}

impl Embedded {
    /// `None` where the bytes are not a file of images, as the empty file of a build without kernels.
    fn index(bytes: &'static [u8]) -> Option<Self> {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
        let mut lines = std::str::from_utf8(&bytes[..end]).ok()?.lines();
        lines.next()?.strip_prefix("narrowgauge-images 2 ")?;
        let mut rest = &bytes[end + 2..];
        let mut images = HashMap::new();
        for line in lines {
            let mut words = line.split(' ');
            let (entry, arch) = (words.next()?, words.next()?);
            let ptx = rest.split_off(..words.next()?.parse().ok()?)?;
            let cubin = rest.split_off(..words.next()?.parse().ok()?)?;
            let like = words.next();
            // The other is whole, so that to unpack is never to go in circles.
            let other: Option<&Packed> = like.and_then(|like| images.get(&(like, arch)));
            if like.is_some() && other.is_none_or(|other| other.like.is_some()) {
                return None;
            }
            images.insert((entry, arch), Packed { ptx, cubin, like, unpacked: OnceLock::new() });
        }
        Some(Embedded { images })
    }

    fn find(&self, entry: &str, arch: &str) -> Result<Image> {
        let packed = self.images.get(&(entry, arch)).ok_or_else(|| self.missing(entry, arch))?;
        let unpack = || {
            let like = packed.like.map(|like| self.find(like, arch)).transpose()?;
            packed.unpack(entry, like.as_ref())
        };
        packed.unpacked.get_or_init(unpack).clone()
    }

    fn missing(&self, entry: &str, arch: &str) -> Error {
        let mut built: Vec<&str> =
            self.images.keys().filter(|(name, _)| *name == entry).map(|(_, arch)| *arch).collect();
        if built.is_empty() {
            return Error::KernelsNotBuilt { kernel: entry.to_owned() };
        }
        built.sort_unstable();
        let built = built.iter().map(|arch| format!("sm_{arch}")).collect::<Vec<_>>().join(", ");
        Error::UnsupportedArch { kernel: entry.to_owned(), found: format!("sm_{arch}"), built }
    }
}

impl Packed {
    fn unpack(&self, entry: &str, like: Option<&Image>) -> Result<Image> {
        let damaged = |what: &str| Error::Image {
            kernel: entry.to_owned(),
            reason: format!("the embedded {what} is damaged"),
        };
        let unpack = |packed: &[u8], like: Option<&[u8]>, what: &str| {
            let mut bytes = miniz_oxide::inflate::decompress_to_vec(packed).map_err(|_| damaged(what))?;
            if let Some(like) = like {
                if like.len() != bytes.len() {
                    return Err(damaged(what));
                }
                bytes.iter_mut().zip(like).for_each(|(byte, other)| *byte ^= other);
            }
            Ok(bytes)
        };
        let ptx = unpack(self.ptx, like.map(|like| like.ptx.as_bytes()), "PTX")?;
        let cubin = unpack(self.cubin, like.and_then(|like| like.cubin.as_deref()), "machine code")?;
        let ptx = String::from_utf8(ptx).map_err(|_| damaged("PTX"))?;
        Ok(Image { ptx: ptx.into(), cubin: Some(cubin.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Images by their lines but for the lengths, and their contents.
    fn file(images: &[(&str, &str, [&[u8]; 2])]) -> &'static [u8] {
        let (mut index, mut blobs) = ("narrowgauge-images 2 13.0.88\n".to_owned(), Vec::new());
        for (name, like, contents) in images {
            let [ptx, cubin] = contents.map(|content| miniz_oxide::deflate::compress_to_vec(content, 8));
            index += &format!("{name} {} {}{like}\n", ptx.len(), cubin.len());
            blobs.extend([ptx, cubin].concat());
        }
        [index.as_bytes(), b"\n", &blobs].concat().leak()
    }

    fn packed() -> &'static [u8] {
        file(&[("add 90a", "", [b".version 8.0", b"\x7fELF"])])
    }

    #[test]
    fn an_image_like_another_is_their_difference() {
        let add = ("add 90a", "", [b"a+b".as_slice(), b"\x7fELF"]);
        let difference: [&[u8]; 2] = [&[0, b'+' ^ b'-', 0], &[0, 0, 0, b'F' ^ b'E']];
        let images = Embedded::index(file(&[add, ("sub 90a", " add", difference)])).unwrap();
        let image = images.find("sub", "90a").unwrap();
        assert_eq!((&*image.ptx, image.cubin.as_deref()), ("a-b", Some(b"\x7fELE".as_slice())));
        let short = Embedded::index(file(&[add, ("sub 90a", " add", [b"ab", b"\x7fELF"])])).unwrap();
        assert!(matches!(short.find("sub", "90a"), Err(Error::Image { .. })));
        for like in [" sub", " other", " neg"] {
            let file = file(&[add, ("neg 90a", " add", difference), ("sub 90a", like, difference)]);
            assert!(Embedded::index(file).is_none(), "{like}");
        }
    }

    #[test]
    fn an_image_comes_back_as_it_was_packed() {
        let images = Embedded::index(packed()).unwrap();
        for _ in 0..2 {
            let image = images.find("add", "90a").unwrap();
            assert_eq!(&*image.ptx, ".version 8.0");
            assert_eq!(image.cubin.as_deref(), Some(b"\x7fELF".as_slice()));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let images = Embedded::index(packed()).unwrap();
        let error = images.find("add", "80").unwrap_err().to_string();
        assert!(error.contains("sm_80") && error.contains("sm_90a"), "{error}");
        let error = images.find("subtract", "90a").unwrap_err();
        assert_eq!(error, Error::KernelsNotBuilt { kernel: "subtract".into() });
    }

    #[test]
    fn a_build_without_kernels_has_none() {
        assert!(Embedded::index(b"").is_none());
        let error = Embedded::default().find("add", "90a").unwrap_err();
        assert_eq!(error, Error::KernelsNotBuilt { kernel: "add".into() });
    }

    #[test]
    fn a_cut_file_is_refused() {
        let whole = packed();
        assert!(Embedded::index(&whole[..whole.len() - 1]).is_none());
    }

    #[test]
    fn every_embedded_image_unpacks() {
        for (entry, arch) in embedded().images.keys() {
            let image = find(entry, arch).unwrap();
            assert!(image.ptx.contains(&format!(".entry {entry}(")), "{entry} is not in its own PTX");
            assert!(image.cubin.unwrap().starts_with(b"\x7fELF"), "{entry}");
        }
    }
}
