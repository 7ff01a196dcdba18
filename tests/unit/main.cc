// The main of the one binary that holds every unit test; `--help` tells how to run some.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
