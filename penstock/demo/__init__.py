"""The application that `penstock demo` runs; written as a user of Penstock would write it."""
