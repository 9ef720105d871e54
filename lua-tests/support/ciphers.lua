-- Names of ciphers.

local ciphers = {}

--- OpenSSL's name as IANA writes it; since TLS 1.3 they are the same.
function ciphers.iana(name)
  if name:match("^TLS_") then
    return name
  end
  name = name:gsub("AES", "WITH-AES-"):gsub("CHACHA20%-POLY1305", "WITH-%0-SHA256")
  return "TLS_" .. name:gsub("%-", "_")
end

return ciphers
