package faults

import (
	"encoding/json"
	"net/http"
)

// maxPlan bounds a plan that comes from outside, in bytes.
const maxPlan = 1 << 20

// ServeHTTP lets a plan be set (PUT), seen with the number of hits of each rule
// (GET) and taken away (DELETE).
func (in *Injector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		in.show(w)
	case http.MethodPut:
		var p Plan
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPlan))
		d.DisallowUnknownFields()
		err := d.Decode(&p)
		if err == nil {
			err = in.Set(p)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case http.MethodDelete:
		if err := in.Set(Plan{}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT, DELETE")
		http.Error(w, "faults are read with GET, set with PUT and taken away with DELETE", http.StatusMethodNotAllowed)
	}
}

func (in *Injector) show(w http.ResponseWriter) {
	in.mu.Lock()
	p := in.plan
	in.mu.Unlock()
	data, err := json.Marshal(struct {
		Plan
		Hits []int `json:"hits"`
	}{p, in.Hits()})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(data); err != nil {
		return // the client went away
	}
}
