//! Multi-head latent attention on whatever device `NARROWGAUGE_DEVICE` names.

mod attention;
