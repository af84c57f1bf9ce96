package partition

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

var (
	tools  = flag.Bool("tools", false, "make tables with sfdisk and sgdisk, which must be there, and read them")
	update = flag.Bool("update", false, "with -tools: keep the tables under testdata")
)

// make lets real programs make the table, in a file.
func (d disk) make(t *testing.T) (name string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), d.name)
	noError(t, os.WriteFile(name, nil, 0o600))
	noError(t, os.Truncate(name, d.size))
	for i, program := range d.program {
		args := append([]string{}, program[1:]...)
		args[len(args)-1] = name
		cmd := command(t, program[0], args...)
		if i == 0 {
			cmd.Stdin = strings.NewReader(d.input)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	return name
}

// TestTools makes the tables anew, reads them, and asks sfdisk what is in them.
func TestTools(t *testing.T) {
	if !*tools {
		t.Log("not asked for: -tools")
		return
	}
	for _, d := range disks {
		t.Run(d.name, func(t *testing.T) {
			name := d.make(t)
			image, err := os.ReadFile(name)
			noError(t, err)
			if *update {
				keep(t, d.name, image)
			}
			dev := blockdev.NewMemory(d.size)
			put(t, dev, 0, image)
			samePartitions(t, dev, d.want)
			samePartitions(t, dev, dump(t, name))
		})
	}
}

// command is a program that speaks UTF-8.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	return cmd
}

// dump is what sfdisk reads in a file.
func dump(t *testing.T, name string) []Partition {
	t.Helper()
	out, err := command(t, "sfdisk", "--json", name).Output()
	noError(t, err)
	var table struct {
		PartitionTable struct {
			Label, ID  string
			Partitions []struct {
				Node, Type, UUID, Name string
				Start, Size            int64
			}
		}
	}
	noError(t, json.Unmarshal(out, &table))
	var parts []Partition
	for _, p := range table.PartitionTable.Partitions {
		q := Partition{Offset: p.Start * 512, Length: p.Size * 512, Name: p.Name, Scheme: "gpt", Type: strings.ToLower(p.Type), UUID: strings.ToLower(p.UUID)}
		if q.Number, err = strconv.Atoi(strings.TrimPrefix(p.Node, name)); err != nil {
			t.Fatal(err)
		}
		if table.PartitionTable.Label == "dos" {
			if p.Type == "5" || p.Type == "f" || p.Type == "85" {
				continue
			}
			kind := strings.Repeat("0", 2-len(p.Type)) + p.Type
			q = mbrPart(q.Number, p.Start, p.Size, "0x"+kind)
		}
		parts = append(parts, q)
	}
	return parts
}
