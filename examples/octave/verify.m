% Do two pictures show the same character? Asks siamese_omniglot over REST.
%
%   octave verify.m http://localhost:8501 character_1.png character_2.png
%
% In MATLAB: server = "http://localhost:8501"; files = {"character_1.png", "character_2.png"};
% and the lines below. Needs Octave 7 or MATLAB, curl, and a server: keras-shared serve
% siamese_omniglot. One tower with one set of weights, stored once, looks at both pictures.
1;

function text = encoded(file)
  id = fopen(file, "r");
  if id < 0
    error("%s cannot be read", file);
  end
  bytes = fread(id, Inf, "*uint8");
  fclose(id);
  if exist("OCTAVE_VERSION", "builtin")
    text = base64_encode(bytes');
  else
    text = matlab.net.base64encode(bytes');
  end
end

if exist("OCTAVE_VERSION", "builtin")
  given = argv();
  if numel(given) ~= 3
    error("usage: octave verify.m SERVER PICTURE PICTURE");
  end
  server = given{1};
  files = given(2:3);
end
pair = struct("b64", {encoded(files{1}), encoded(files{2})});
inputs = struct("image_a_bytes", {{pair(1)}}, "image_b_bytes", {{pair(2)}});  % a batch of one pair
body = jsonencode(struct("signature_name", "verify_bytes", "inputs", inputs));

file = tempname();
id = fopen(file, "w");
fwrite(id, body);
fclose(id);
address = [server "/v1/models/siamese_omniglot:predict"];
[status, text] = system(sprintf("curl -s -d @%s %s", file, address));
delete(file);
if status ~= 0
  error("no connection to %s", server);
end
answer = jsondecode(text);
if isfield(answer, "error")
  error(answer.error);
end
printf("probability that both show the same: %.6f\n", answer.outputs.probability);
