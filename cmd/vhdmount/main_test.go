package main

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vhdmount": main, tapdiskName: main})
}

// TestScripts runs the command line as people use it, without mounting.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("VHDMOUNT_RUNTIME_DIR", filepath.Join(env.WorkDir, ".run"))
			env.Setenv("GORACE", "atexit_sleep_ms=0") // each command would take a second to end
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  exits,
			"lines":  lines,
			"splice": splice,
			"extend": extend,
		},
	})
}
