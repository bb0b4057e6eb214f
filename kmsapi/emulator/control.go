package emulator

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
)

// controlPath begins the paths that no real service has.
const controlPath = "/-/"

func (s *Server) newControl() http.Handler {
	secret := make([]byte, sha256.Size)
	rand.Read(secret) // never fails (crypto/rand since Go 1.24)
	mux := http.NewServeMux()
	mux.Handle(controlPath+"faults", &s.faults)
	mux.HandleFunc("GET "+controlPath+"keys", func(w http.ResponseWriter, _ *http.Request) { s.listAllKeys(w, secret) })
	return mux
}

// keyReport is a key as /-/keys shows it.
type keyReport struct {
	Region  string `json:"region"`
	KeyID   string `json:"key_id"`
	Origin  string `json:"origin"`
	State   state  `json:"state"`
	Imports int    `json:"imports"`
	Tags    []tag  `json:"tags"`
	// Material is equal for keys that hold equal material, within one run of
	// the emulator, and says nothing else; empty without material.
	Material string `json:"material"`
}

// listAllKeys shows the keys of all regions, oldest first in each.
func (s *Server) listAllKeys(w http.ResponseWriter, secret []byte) {
	list := []keyReport{}
	now := s.clock().UTC()
	for _, name := range s.names {
		region := s.regions[name]
		if err := region.advance(now); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		for _, k := range region.allKeys() {
			report := keyReport{Region: name, KeyID: k.ID, Origin: k.Origin, State: k.State, Imports: k.Imports, Tags: k.Tags}
			if k.Material != nil {
				mac := hmac.New(sha256.New, secret)
				mac.Write(k.Material)
				report.Material = hex.EncodeToString(mac.Sum(nil))
			}
			list = append(list, report)
		}
	}
	data, err := json.Marshal(list)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(data); err != nil {
		return // the client went away
	}
}
