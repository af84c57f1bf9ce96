package confine

import (
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// handled is what Landlock can refuse as of its first and fourth ABI.
type handled struct{ files, network bool }

// restrictFiles puts the process into a Landlock domain. Signals are left out
// of it: every thread gets a domain of its own, and kernels before 6.15 keep
// signals from one to another, by which the Go runtime stops its threads.
func restrictFiles(o Options) (handled, error) {
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil {
		return handled{}, fmt.Errorf("landlock: %w", err)
	}
	config := landlock.V10
	config.Scoped = landlock.ScopedSet(llsys.ScopeAbstractUnixSocket)
	if o.AnyFile {
		config.HandledAccessFS = 0
	}
	config = config.BestEffort()
	if err := config.Restrict(rules(o)...); err != nil {
		return handled{}, fmt.Errorf("landlock: %w", err)
	}
	h := handled{files: !o.AnyFile && abi >= 1, network: abi >= 4}
	if !h.network {
		return h, fmt.Errorf("landlock: ABI %d knows no network", abi)
	}
	return h, nil
}

func rules(o Options) []landlock.Rule {
	if o.AnyFile {
		return nil
	}
	var rules []landlock.Rule
	if len(o.RemoveIn) > 0 {
		const remove = llsys.AccessFSRemoveFile | llsys.AccessFSRemoveDir
		rules = append(rules, landlock.PathAccess(remove, o.RemoveIn...))
	}
	if len(o.Read) > 0 {
		rules = append(rules, landlock.PathAccess(llsys.AccessFSReadFile, o.Read...))
	}
	if len(o.Write) > 0 {
		const write = llsys.AccessFSReadFile | llsys.AccessFSWriteFile | llsys.AccessFSTruncate
		rules = append(rules, landlock.PathAccess(write, o.Write...))
	}
	return rules
}
