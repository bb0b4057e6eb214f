package pkcs11

import (
	"context"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// load opens the vendor library. The dynamic linker's own words do not reach us
// through the binding, so everything that can be known from the file is checked
// first.
func load(path string) (*p11.Ctx, error) {
	if err := checkLibrary(path); err != nil {
		return nil, err
	}
	module := p11.New(path)
	if module == nil {
		return nil, hsm.Errorf(hsm.Misconfigured,
			"PKCS#11 library %s cannot be loaded, probably because a library that it needs is missing: look for \"not found\" in the output of ldd %s", path, path)
	}
	return module, nil
}

// initialize loads a library and initialises it for this process.
func initialize(ctx context.Context, path string) (*p11.Ctx, error) {
	module, err := load(path)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, hsm.Errorf(hsm.Timeout, "initialise PKCS#11 library %s: %v", path, context.Cause(ctx))
	}
	err = module.Initialize()
	switch {
	case err == nil:
		return module, nil
	case hasCode(err, p11.CKR_CRYPTOKI_ALREADY_INITIALIZED):
		return nil, &hsm.Error{Reason: hsm.Invalid, Code: codeName(p11.CKR_CRYPTOKI_ALREADY_INITIALIZED),
			Detail: "PKCS#11 library " + path + " is already in use in this process"}
	default:
		return nil, deviceError(err, "initialise PKCS#11 library %s", path)
	}
}

func checkLibrary(path string) error {
	switch {
	case path == "":
		return hsm.Errorf(hsm.Misconfigured, "no PKCS#11 library is configured")
	case !filepath.IsAbs(path):
		return hsm.Errorf(hsm.Misconfigured, "PKCS#11 library %s: the path must be absolute", path)
	}
	// Stat before Open, so that a FIFO cannot block.
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return hsm.Errorf(hsm.Misconfigured, "PKCS#11 library %s does not exist: is the vendor's client installed?", path)
	case err != nil:
		return hsm.Errorf(hsm.Misconfigured, "PKCS#11 library: %v", err)
	case !info.Mode().IsRegular():
		return hsm.Errorf(hsm.Misconfigured, "PKCS#11 library %s is not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return hsm.Errorf(hsm.Misconfigured, "PKCS#11 library: %v", err)
	}
	defer file.Close()
	return checkELF(path, file)
}

// machines has the ELF name of each architecture that the vendors ship for.
var machines = map[string]elf.Machine{
	"amd64":   elf.EM_X86_64,
	"arm64":   elf.EM_AARCH64,
	"386":     elf.EM_386,
	"arm":     elf.EM_ARM,
	"ppc64le": elf.EM_PPC64,
	"s390x":   elf.EM_S390,
}

func checkELF(path string, file *os.File) error {
	object, err := elf.NewFile(file)
	if err != nil {
		return hsm.Errorf(hsm.Misconfigured, "PKCS#11 library %s is not an ELF shared object", path)
	}
	if object.Type != elf.ET_DYN {
		return hsm.Errorf(hsm.Misconfigured, "PKCS#11 library %s is an ELF file but not a shared object (%v)", path, object.Type)
	}
	if want, known := machines[runtime.GOARCH]; known && object.Machine != want {
		return hsm.Errorf(hsm.Misconfigured, "PKCS#11 library %s is for another processor (%v, this is %s)", path, object.Machine, runtime.GOARCH)
	}
	symbols, err := object.DynamicSymbols()
	exported := slices.ContainsFunc(symbols, func(s elf.Symbol) bool {
		return s.Name == "C_GetFunctionList" && s.Section != elf.SHN_UNDEF
	})
	if err != nil || !exported {
		return hsm.Errorf(hsm.Misconfigured, "PKCS#11 library %s does not export C_GetFunctionList: it is another kind of library", path)
	}
	return nil
}

// describeLibrary is the library's own account of itself.
func describeLibrary(info p11.Info) string {
	return strings.TrimSpace(info.LibraryDescription) + " " + version(info.LibraryVersion)
}
