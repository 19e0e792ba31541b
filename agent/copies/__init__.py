"""Copies from peers: who may be asked, who is asked next, one artifact out of several sources.

`manager` owns every copy and `job` is one of them; `lineup` decides which source is asked and when
one is given up (pure); `feed` and `failover` read one artifact out of several peers in turn, and
`combined` out of several at once (`widening` and `parts` decide, pure; `braid` does); `peers`,
`resolver`, `networks`, `source_url` and `peer_answer` say whom this sled asks and which answers it
believes.
"""
