package rpc

import "github.com/kmsbroker/kmsbroker/hsm/cryptoki"

func (w *writer) version(v cryptoki.Version) {
	w.byte(v.Major)
	w.byte(v.Minor)
}

func (r *reader) version() cryptoki.Version {
	return cryptoki.Version{Major: r.byte(), Minor: r.byte()}
}

func (w *writer) libraryInfo(i *cryptoki.LibraryInfo) {
	w.version(i.Cryptoki)
	w.bytes(i.Manufacturer[:])
	w.uint64(i.Flags)
	w.bytes(i.Description[:])
	w.version(i.Library)
}

func (r *reader) libraryInfo() *cryptoki.LibraryInfo {
	i := &cryptoki.LibraryInfo{Cryptoki: r.version()}
	r.fixed(i.Manufacturer[:])
	i.Flags = r.uint64()
	r.fixed(i.Description[:])
	i.Library = r.version()
	return i
}

func (w *writer) slotInfo(i *cryptoki.SlotInfo) {
	w.bytes(i.Description[:])
	w.bytes(i.Manufacturer[:])
	w.uint64(i.Flags)
	w.version(i.Hardware)
	w.version(i.Firmware)
}

func (r *reader) slotInfo() *cryptoki.SlotInfo {
	i := &cryptoki.SlotInfo{}
	r.fixed(i.Description[:])
	r.fixed(i.Manufacturer[:])
	i.Flags = r.uint64()
	i.Hardware, i.Firmware = r.version(), r.version()
	return i
}

func (w *writer) tokenInfo(i *cryptoki.TokenInfo) {
	w.bytes(i.Label[:])
	w.bytes(i.Manufacturer[:])
	w.bytes(i.Model[:])
	w.bytes(i.Serial[:])
	w.uint64(i.Flags)
	for _, n := range i.Counts {
		w.uint64(n)
	}
	w.version(i.Hardware)
	w.version(i.Firmware)
	w.bytes(i.UTCTime[:])
}

func (r *reader) tokenInfo() *cryptoki.TokenInfo {
	i := &cryptoki.TokenInfo{}
	r.fixed(i.Label[:])
	r.fixed(i.Manufacturer[:])
	r.fixed(i.Model[:])
	r.fixed(i.Serial[:])
	i.Flags = r.uint64()
	for n := range i.Counts {
		i.Counts[n] = r.uint64()
	}
	i.Hardware, i.Firmware = r.version(), r.version()
	r.fixed(i.UTCTime[:])
	return i
}
