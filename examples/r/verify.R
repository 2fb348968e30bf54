# Do two pictures show the same character? Asks siamese_omniglot over REST.
#
#   Rscript verify.R http://localhost:8501 character_1.png character_2.png
#
# Needs the packages curl and jsonlite, and a server: keras-shared serve siamese_omniglot.
# One tower with one set of weights, stored once, looks at both pictures.
library(curl)
library(jsonlite)

arguments <- commandArgs(trailingOnly = TRUE)
if (length(arguments) != 3) stop("usage: Rscript verify.R SERVER PICTURE PICTURE")

encoded <- function(file) list(b64 = base64_enc(readBin(file, "raw", file.size(file))))

body <- toJSON(list(
  signature_name = "verify_bytes",
  inputs = list(  # a batch of one pair
    image_a_bytes = list(encoded(arguments[2])),
    image_b_bytes = list(encoded(arguments[3]))
  )
), auto_unbox = TRUE)
request <- new_handle(postfields = body)
server <- sub("/+$", "", arguments[1])
response <- curl_fetch_memory(paste0(server, "/v1/models/siamese_omniglot:predict"), request)
probability <- tryCatch(  # a proxy answers with other text than JSON
  fromJSON(rawToChar(response$content))$outputs$probability, error = function(reason) NULL
)
if (response$status_code != 200 || !is.numeric(probability)) {
  said <- rawToChar(head(response$content, 500))
  stop(sprintf("%s answers with status %d: %s", server, response$status_code, said))
}
cat("probability that both show the same:", probability, "\n")
