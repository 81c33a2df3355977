//! An executable the container cannot overwrite (CVE-2019-5736).
