package argv

import "testing"

func TestClosest(t *testing.T) {
	verbs := []string{"mount", "unmount", "list", "info", "map", "create", "snapshot", "check", "completion"}
	for name, want := range map[string]string{
		"mout":      "mount",
		"muont":     "mount",
		"mount":     "mount",
		"umnount":   "unmount",
		"ls":        "",
		"lst":       "list",
		"snapshots": "snapshot",
		"chekc":     "check",
		"mp":        "map",
		"x":         "",
		"":          "",
		"help me":   "",
		"inform":    "info",
	} {
		got, ok := Closest(name, verbs)
		if got != want || ok != (want != "") {
			t.Errorf("Closest(%q) = %q, %v; want %q", name, got, ok, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "axc", 1}, {"abc", "acb", 1}, {"abc", "ab", 1}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
