package mountopts

import (
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"
)

func number(n uint32) *uint32 { return &n }

func TestParse(t *testing.T) {
	for in, want := range map[string]Options{
		"":                         {},
		"ro":                       {ReadOnly: true},
		"ro,rw":                    {},
		"rw,ro":                    {ReadOnly: true},
		"allow_other":              {AllowOther: true},
		"allow_root":               {AllowRoot: true},
		"default_permissions":      {DefaultPermissions: true},
		"uid=1000,gid=0":           {UID: number(1000), GID: number(0)},
		"umask=027":                {Umask: new(fs.FileMode(0o027))},
		"umask=0":                  {Umask: new(fs.FileMode(0))},
		`fsname=a\,b\\c,ro`:        {FSName: `a,b\c`, ReadOnly: true},
		"fsname=a=b":               {FSName: "a=b"},
		"defaults,nofail,ro":       {ReadOnly: true},
		"rw,nosuid,nodev,noexec":   {},
		"dev,suid,exec,relatime":   {},
		"user,noauto,_netdev":      {},
		"x-systemd.automount,ro":   {ReadOnly: true},
		"x-systemd.idle-timeout=5": {},
		"comment=hello":            {},
		",ro,":                     {ReadOnly: true},
	} {
		t.Run(in, func(t *testing.T) {
			got, err := Parse(in)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
		})
	}
}

func TestParseJoinsListsInOrder(t *testing.T) {
	got, err := Parse("ro,uid=1", "rw", "uid=2")
	if err != nil || got.ReadOnly || *got.UID != 2 {
		t.Errorf("got %+v, %v; want rw and uid 2", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"bogus":                  `unknown word "bogus"`,
		"ro=1":                   `unknown word "ro=1"`,
		"RO":                     `unknown word "RO"`,
		"sync":                   `unknown word "sync"`,
		"uid":                    "uid needs a value",
		"uid=":                   "uid needs a value",
		"uid=root":               "uid=root: not the number",
		"uid=-1":                 "uid=-1: not the number",
		"gid=4294967295":         "gid=4294967295: not the number",
		"umask=9":                "umask=9: not an octal number",
		"umask=1777":             "umask=1777: not an octal number",
		"allow_other,allow_root": "exclude each other",
	} {
		t.Run(in, func(t *testing.T) {
			_, err := Parse(in)
			if !errors.Is(err, ErrOption) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v; want ErrOption with %q", err, want)
			}
		})
	}
}

func TestFilesOnlyNamesWhatABlockDeviceHasNot(t *testing.T) {
	for list, want := range map[string]string{
		"ro,rw,noatime,defaults": "",
		"ro,allow_other":         "allow_other",
		"allow_root":             "allow_root",
		"default_permissions":    "default_permissions",
		"uid=0":                  "uid",
		"gid=0":                  "gid",
		"umask=0":                "umask",
		"fsname=x":               "fsname",
	} {
		o, err := Parse(list)
		if err != nil {
			t.Fatal(err)
		}
		if got := o.FilesOnly(); got != want {
			t.Errorf("%s: %q, want %q", list, got, want)
		}
	}
}
