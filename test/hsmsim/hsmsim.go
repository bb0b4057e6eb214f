// Package hsmsim makes simulated Luna and DPoD devices for tests: a PKCS#11
// library in C (folder cryptoki) in front of a SoftHSM token, the configuration
// directory of the vendor's client, and the control file that makes the device
// misbehave.
//
// No such hardware is at hand, so what the simulator does is what documents say
// of the devices, and a stated choice where they say nothing; README.md tells
// which is which. Everything works by files and environment, so the program
// under test may be another process.
package hsmsim

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
)

// Dress is the device that the simulator imitates.
type Dress string

// The dresses, as HSMSIM_DRESS spells them.
const (
	Luna            Dress = "luna"
	LunaFIPS        Dress = "luna-fips"
	LunaOldFirmware Dress = "luna-oldfw"
	LunaHA          Dress = "luna-ha"
	DPoD            Dress = "dpod"
)

// Sim is one simulated device with one partition, or one HA group.
type Sim struct {
	Library string   // absolute path of the PKCS#11 library
	Dir     string   // ChrystokiConfigurationPath
	Env     []string // what a process needs to see the device, as KEY=value

	Label  string // of the partition, or of the HA group
	Serial string // of the partition, or of the HA group
	// MemberSerials of the HA group; empty in other dresses.
	MemberSerials []string

	PIN   string // of the Crypto Officer
	SOPIN string // of the Partition Security Officer
	CUPIN string // of the Crypto User

	t         testing.TB
	partition string // serial of the partition itself
	control   string
	log       string
	softhsm   *softhsmtest.Fixture
	lines     []string // of hsmsim.conf
}

// settings is what options change.
type settings struct {
	lines      []string
	partitions []string
	group      string
}

// Option changes a device from the defaults of its dress.
type Option func(*settings)

// Set sets an option of hsmsim.conf; README.md lists them.
func Set(name, value string) Option {
	return func(s *settings) { s.lines = append(s.lines, name+" = "+value) }
}

// Partition adds a second partition with the same PINs. In the dpod dress one
// whose label is the option hybrid_label is on a Luna HSM.
func Partition(label string) Option {
	return func(s *settings) { s.partitions = append(s.partitions, label) }
}

// GroupLabel gives the HA group a label that its members do not have.
func GroupLabel(label string) Option {
	return func(s *settings) {
		s.lines = append(s.lines, "ha_label = "+label)
		s.group = label
	}
}

// New makes a device of its own for a test. It builds the library when
// `make build` has not.
func New(t testing.TB, dress Dress, opts ...Option) *Sim {
	t.Helper()
	var chosen settings
	for _, opt := range opts {
		opt(&chosen)
	}
	softhsm := softhsmtest.New(t)
	for _, label := range chosen.partitions {
		softhsm.AddToken(t, label)
	}
	dir := t.TempDir()
	s := &Sim{
		Library: library(t),
		Dir:     filepath.Join(dir, "client"),
		Label:   softhsm.Label,
		PIN:     softhsm.PIN,
		SOPIN:   softhsm.SOPIN,
		CUPIN:   "9012-crypto-user",
		t:       t,
		control: filepath.Join(dir, "control"),
		log:     filepath.Join(dir, "calls"),
		softhsm: softhsm,
		lines:   chosen.lines,
	}
	s.nameSerials(dress)
	s.Env = []string{
		"HSMSIM_DRESS=" + string(dress),
		"HSMSIM_CONTROL=" + s.control,
		"HSMSIM_LOG=" + s.log,
		"ChrystokiConfigurationPath=" + s.Dir,
		softhsm.Env(),
	}
	switch dress {
	case DPoD:
		s.writeServiceClient()
	case LunaHA:
		s.Label = cmp.Or(chosen.group, s.Label)
		s.writeLunaClient(s.groupSections())
	default:
		s.writeLunaClient("")
	}
	s.writeOptions()
	return s
}

func (s *Sim) nameSerials(dress Dress) {
	s.partition = partitionSerial(s.softhsm.Serial)
	s.Serial = s.partition
	if dress != LunaHA {
		return
	}
	// As documented: the group has the serial of its first member after a 1.
	first, _ := strconv.ParseUint(s.partition, 10, 64)
	for member := range uint64(2) {
		s.MemberSerials = append(s.MemberSerials, strconv.FormatUint(first+member, 10))
	}
	s.Serial = "1" + s.partition
}

// partitionSerial is the 13-digit serial that the library makes of SoftHSM's.
func partitionSerial(softhsm string) string {
	number, _ := strconv.ParseUint(softhsm, 16, 64)
	return strconv.FormatUint(number%9_000_000_000_000+1_000_000_000_000, 10)
}

// Change sets more options, which count from the next C_Initialize.
func (s *Sim) Change(opts ...Option) {
	s.t.Helper()
	var chosen settings
	for _, opt := range opts {
		opt(&chosen)
	}
	s.lines = append(s.lines, chosen.lines...)
	s.writeOptions()
}

func (s *Sim) writeOptions() {
	s.t.Helper()
	own := []string{
		"softhsm = " + s.softhsm.Library,
		"co_pin = " + s.PIN,
		"so_pin = " + s.SOPIN,
		"cu_pin = " + s.CUPIN,
	}
	s.write("hsmsim.conf", strings.Join(append(own, s.lines...), "\n")+"\n", 0o600)
}

// write makes a file of the client's directory.
func (s *Sim) write(name, content string, mode os.FileMode) {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		s.t.Fatal(err)
	}
}

// Setenv shows the device to the test's own process. Like testing.T.Setenv it
// rules out parallel tests, and a process can use one device at a time anyway.
func (s *Sim) Setenv() {
	s.t.Helper()
	for _, entry := range s.Env {
		name, value, _ := strings.Cut(entry, "=")
		s.t.Setenv(name, value)
	}
}

// Failures returns how many wrong PINs the device has counted for a role: "so",
// "co", "cu" or "lco". The count outlives processes.
func (s *Sim) Failures(role string) int {
	s.t.Helper()
	path := filepath.Join(filepath.Dir(s.softhsm.ConfPath), "tokens."+s.partition+".roles")
	content, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatalf("the device has not been asked for its roles yet: %v", err)
	}
	for line := range strings.Lines(string(content)) {
		var name, hash string
		var failures, expired int
		if _, err := fmt.Sscan(line, &name, &failures, &expired, &hash); err == nil && name == role {
			return failures
		}
	}
	s.t.Fatalf("%s has no role %q", path, role)
	return 0
}
