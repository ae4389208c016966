//! Measurements kept in the repository: `benches/record/<card>/<date>.json`.

use narrowgauge::Device;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// What the driver's own tool says about the card, where it is installed.
const ASKED: [&str; 6] =
    ["name", "driver_version", "clocks.sm", "clocks.mem", "power.limit", "temperature.gpu"];

/// The object of a run: its rows and what they were measured on.
pub fn object(device: &Device, rows: Vec<Value>) -> Value {
    let mut object = json!({
        "device": device.name(),
        "card": device.card().name,
        "simulated": device.is_simulated(),
        "version": env!("CARGO_PKG_VERSION"),
        "commit": env!("NARROWGAUGE_COMMIT"),
        "source": "narrowgauge",
        "rows": rows,
    });
    if !device.is_simulated() {
        object["date"] = date(SystemTime::now()).into();
        object["protocol"] = super::PROTOCOL.into();
        object["state"] = state();
    }
    object
}

/// Clocks and driver right behind the last run, while the card is still warm.
fn state() -> Value {
    let query = format!("--query-gpu={}", ASKED.join(","));
    let output = Command::new("nvidia-smi").args([&query, "--format=csv,noheader"]).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else { return Value::Null };
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(line) = text.lines().next() else { return Value::Null };
    let pairs = ASKED.iter().zip(line.split(','));
    pairs.map(|(name, value)| (name.to_string(), Value::from(value.trim()))).collect()
}

/// Writes below `folder`, and beside what is there already.
pub fn write(folder: &Path, object: &Value) -> Result<PathBuf, String> {
    let word = |key: &str| object[key].as_str().unwrap_or("unknown").replace([' ', '/'], "-").to_lowercase();
    let folder = folder.join(word("card"));
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let name = format!("{}-{}", word("date"), word("source"));
    let path = (1..)
        .map(|run| folder.join(if run == 1 { format!("{name}.json") } else { format!("{name}-{run}.json") }))
        .find(|path| !path.exists())
        .expect("there are more numbers than files");
    let text = serde_json::to_string_pretty(object).map_err(|e| e.to_string())?;
    fs::write(&path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

/// `2026-11-25`, in UTC.
fn date(now: SystemTime) -> String {
    let days = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    // Eras of 400 years that start in March, so that a leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + u64::from(month <= 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn days_become_dates() {
        let days = [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_782, "2026-11-25")];
        for (day, text) in days {
            assert_eq!(date(SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400)), text);
        }
    }

    #[test]
    fn records_lie_beside_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let object = json!({ "card": "H800 PCIe", "date": "2026-11-25", "source": "narrowgauge" });
        let names = ["2026-11-25-narrowgauge.json", "2026-11-25-narrowgauge-2.json"];
        for name in names {
            assert_eq!(write(folder.path(), &object).unwrap(), folder.path().join("h800-pcie").join(name));
        }
    }
}
