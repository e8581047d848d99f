package client

import "time"

// Status is the answer to GET /v1/status: one peer as it is now.
type Status struct {
	Name     string    `json:"name" doc:"The peer's friendly name"`
	ID       string    `json:"id" doc:"The peer's id, made from its public key"`
	Version  string    `json:"version" doc:"The program's version"`
	PID      int       `json:"pid" doc:"Process id of the peer"`
	Home     string    `json:"home" doc:"The peer's folder"`
	API      string    `json:"api" doc:"Where the local API listens, as network:address"`
	Started  time.Time `json:"started" doc:"When the peer started"`
	Addrs    []string  `json:"addrs" nullable:"false" doc:"Multiaddresses that others can dial, each ending in /p2p/ID"`
	LAN      bool      `json:"lan" doc:"Whether the peer announces itself on the local network"`
	Table    int       `json:"table" doc:"Number of peers in the DHT's routing table"`
	Peers    []Peer    `json:"peers" nullable:"false" doc:"Connected peers"`
	Shares   int       `json:"shares" doc:"Number of shares"`
	Shared   int64     `json:"shared" doc:"Bytes in all shares"`
	Fetching int       `json:"fetching" doc:"Number of gets under way"`
	Uploaded int64     `json:"uploaded" doc:"Bytes served since the peer started"`
}

// Peer is another peer that this one is connected to.
type Peer struct {
	ID    string `json:"id" doc:"The peer's id"`
	Agent string `json:"agent,omitempty" doc:"What the peer says it runs, not verified"`
	Paths []Path `json:"paths" nullable:"false" doc:"One entry per connection"`
}

// Path is one connection to another peer.
type Path struct {
	Transport string  `json:"transport" doc:"tcp+tls, tcp+noise, quic or relay"`
	Remote    string  `json:"remote" doc:"The other side's multiaddress"`
	Scope     string  `json:"scope" doc:"loopback, lan or wan"`
	RTT       float64 `json:"rtt_ms" doc:"Round trip in milliseconds; 0 is not measured yet"`
	Limited   bool    `json:"limited" doc:"Whether a relay limits this connection's bytes and time"`
}

// Identity is the answer to GET /v1/id.
type Identity struct {
	Name  string   `json:"name" doc:"The peer's friendly name"`
	ID    string   `json:"id" doc:"The peer's id"`
	Addrs []string `json:"addrs" nullable:"false" doc:"Multiaddresses that others can dial; empty when no peer is running"`
}

// ShareRequest is the body of POST /v1/share.
type ShareRequest struct {
	Path string `json:"path" minLength:"1" maxLength:"4096" doc:"Absolute path of the file or folder to share; nothing is copied"`
	Name string `json:"name,omitempty" maxLength:"255" doc:"Name in the link; empty is the last element of the path"`

	From     []string `json:"from,omitempty" maxItems:"4" doc:"URLs where the same bytes lie too, for single files; they go into the link"`
	Download bool     `json:"download,omitempty" doc:"Make the file at path first, from the first of these URLs"`
	Car      bool     `json:"car,omitempty" doc:"The path is a CAR file: unpack it and share what is in it"`
	Dest     string   `json:"dest,omitempty" maxLength:"4096" doc:"Absolute path to unpack to; empty is beside the CAR file"`
	Force    bool     `json:"force,omitempty" doc:"Replace what is at dest"`

	SeedRatio float64 `json:"seed_ratio,omitempty" minimum:"0" doc:"Unshare once so many times its size was served; 0 is never"`
	SeedTime  float64 `json:"seed_time_s,omitempty" minimum:"0" doc:"Unshare after so many seconds of seeding; 0 is never"`
}

// GetRequest is the body of POST /v1/get.
type GetRequest struct {
	Link    string  `json:"link" minLength:"1" maxLength:"8192" doc:"A shoal: link or a bare CID"`
	Dest    string  `json:"dest" minLength:"1" maxLength:"4096" doc:"Absolute path that the file or folder will have"`
	Force   bool    `json:"force,omitempty" doc:"Replace what is at dest"`
	Timeout float64 `json:"timeout_s,omitempty" minimum:"0" doc:"Give up after this many seconds in which nothing arrived; 0 is the peer's default"`

	Only       []string `json:"only,omitempty" maxItems:"64" doc:"Patterns that choose files and whole folders; all of it when empty"`
	Sequential bool     `json:"sequential,omitempty" doc:"Fetch in order, so that it can be read meanwhile"`
	Car        bool     `json:"car,omitempty" doc:"Write it to dest as one CAR file"`

	SeedRatio       float64 `json:"seed_ratio,omitempty" minimum:"0" doc:"Unshare once so many times its size was served; 0 changes nothing"`
	SeedTime        float64 `json:"seed_time_s,omitempty" minimum:"0" doc:"Unshare after so many seconds of seeding; 0 changes nothing"`
	PrivateWebSeeds bool    `json:"private_web_seeds,omitempty" doc:"Let web seeds of the link be at addresses that are not public"`
}

// Progress is the SSE event "progress" of share and get. Byte counts are -1
// where they are not known yet.
type Progress struct {
	Phase string  `json:"phase" doc:"hashing, finding, tree, fetching, verifying or writing"`
	Done  int64   `json:"done" doc:"Bytes done"`
	Total int64   `json:"total" doc:"Bytes in all; -1 when not known yet"`
	Files int     `json:"files" doc:"Files in all, as far as they are known"`
	Peers int     `json:"peers" doc:"Peers that bytes come from"`
	Rate  float64 `json:"rate" doc:"Bytes per second, smoothed"`
	Note  string  `json:"note,omitempty" doc:"What is worth telling a person now"`
}

// Share is one shared root: an element of GET /v1/shares, and the SSE event
// "done" of POST /v1/share.
type Share struct {
	Root      string    `json:"root" doc:"CID of the file or folder"`
	Name      string    `json:"name" doc:"Name in the link"`
	Link      string    `json:"link" doc:"The link to give to others"`
	Path      string    `json:"path" doc:"Where the bytes are on this machine"`
	Size      int64     `json:"size" doc:"Bytes of all files"`
	Files     int       `json:"files" doc:"Number of files"`
	State     string    `json:"state" doc:"seeding, changed, missing, partial (a download that is not complete, or a choice of it) or cached (parts that were read)"`
	Have      int64     `json:"have" doc:"Chunks present"`
	Chunks    int64     `json:"chunks" doc:"Chunks in all"`
	Problem   string    `json:"problem,omitempty" doc:"What keeps the share from being served whole"`
	Skipped   []string  `json:"skipped,omitempty" doc:"Paths inside that are no file, folder or link and were left out; said when sharing only"`
	Added     time.Time `json:"added" doc:"When it was shared"`
	Uploaded  int64     `json:"uploaded" doc:"Bytes served since the peer started"`
	Peers     int       `json:"peers" doc:"Peers fetching it now"`
	Announced time.Time `json:"announced,omitzero" doc:"When the DHT was last told of it; absent when it never was"`
	Web       []string  `json:"web,omitempty" doc:"URLs where the same bytes lie too"`
	SeedRatio float64   `json:"seed_ratio,omitempty" doc:"It is unshared once so many times its size was served"`
	SeedTime  float64   `json:"seed_time_s,omitempty" doc:"It is unshared after so many seconds of seeding"`
	Seeded    float64   `json:"seeded_s,omitempty" doc:"Seconds of seeding so far, of a share with such a limit"`
}

// ShareList is the answer to GET /v1/shares.
type ShareList struct {
	Shares []Share `json:"shares" nullable:"false" doc:"Everything this peer seeds, oldest first"`
}

// GetResult is the SSE event "done" of POST /v1/get.
type GetResult struct {
	Path      string     `json:"path" doc:"Where the file or folder is now"`
	Root      string     `json:"root" doc:"CID of what was fetched"`
	Size      int64      `json:"size" doc:"Bytes of all files"`
	Files     int        `json:"files" doc:"Number of files"`
	Fetched   int64      `json:"fetched" doc:"Bytes that came over the network"`
	Reused    int64      `json:"reused" doc:"Bytes that were already here, verified"`
	Elapsed   float64    `json:"elapsed_s" doc:"Seconds it took"`
	Wasted    int64      `json:"wasted" doc:"Bytes that came in vain, twice or wrong"`
	Providers []Provider `json:"providers" nullable:"false" doc:"The peers that bytes came from"`
	Banned    []Banned   `json:"banned" nullable:"false" doc:"The peers that were dropped for lying"`
	Web       []WebSeed  `json:"web,omitempty" doc:"The web seeds of the link"`
}

// WebSeed is a URL of a link, and what became of it in a get.
type WebSeed struct {
	URL   string `json:"url" doc:"Where the bytes lie"`
	Bytes int64  `json:"bytes" doc:"Bytes that came from there"`
	Why   string `json:"why,omitempty" doc:"Why it was dropped; absent when it was not"`
}

// Provider is a peer that sent bytes.
type Provider struct {
	ID    string `json:"id" doc:"The peer's id"`
	Bytes int64  `json:"bytes" doc:"Verified bytes that it sent"`
}

// Banned is a peer that was dropped for the rest of a transfer.
type Banned struct {
	ID  string `json:"id" doc:"The peer's id"`
	Why string `json:"why" doc:"What it did"`
}

// CheckState is how a [Check] came out.
type CheckState string

// The states of a check.
const (
	CheckOK   CheckState = "ok"
	CheckWarn CheckState = "warn"
	CheckFail CheckState = "fail"
)

// Check is one line of GET /v1/doctor.
type Check struct {
	Name  string     `json:"name" doc:"What was looked at"`
	State CheckState `json:"state" enum:"ok,warn,fail" doc:"How it came out"`
	Text  string     `json:"text" doc:"What was found"`
	Hint  string     `json:"hint,omitempty" doc:"What to do about it"`
}

// Doctor is the answer to GET /v1/doctor.
type Doctor struct {
	Checks []Check `json:"checks" nullable:"false" doc:"In the order in which they build upon each other"`
}

// Stopping is the answer to POST /v1/down.
type Stopping struct {
	PID int `json:"pid" doc:"Process id of the peer that is now stopping"`
}
